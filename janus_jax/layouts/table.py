"""The benchmarks by name."""

import dataclasses
from collections.abc import Callable

from janus_jax.errors import UserError
from janus_jax.layouts import drawn, edited
from janus_jax.layouts.item import Item


def no_index(items) -> dict[str, str]:
    """Nothing but the items' own files."""
    return {}


@dataclasses.dataclass(frozen=True)
class Suite:
    """A benchmark. read(prompt files, folder of source pictures or None): its items; files(item, pictures, source
    picture or None): {path in the tree: PIL picture or text} of one; samples: pictures of each item; edits: whether
    items have sources; index(items): further text files of the whole tree."""

    read: Callable
    files: Callable
    samples: int = 1
    edits: bool = False
    index: Callable = no_index

    def items(self, paths, images=None) -> list[Item]:
        """The items of prompt files. Raises UserError, with file and line, for the first fault, and where there are
        none."""
        items = self.read(paths, images)
        if not items:
            raise UserError(f"{paths[0]} holds no prompt")
        return items


SUITES = {
    "geneval": Suite(drawn.geneval, drawn.geneval_files, samples=4),
    "geneval2": Suite(drawn.geneval2, drawn.geneval2_files, index=drawn.geneval2_index),
    "t2i_compbench": Suite(drawn.t2i_compbench, drawn.t2i_compbench_files, samples=10),
    "dpg": Suite(drawn.dpg, drawn.dpg_files, samples=4),
    "wise": Suite(drawn.wise, drawn.flat_files),
    "pie_bench": Suite(edited.pie_bench, edited.pie_bench_files, edits=True),
    "gedit": Suite(edited.gedit, edited.gedit_files, edits=True),
    "imgedit": Suite(edited.imgedit, drawn.flat_files, edits=True),
}

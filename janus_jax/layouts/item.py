"""An item of a benchmark: what is drawn, and what its pictures are called."""

import dataclasses
from pathlib import Path

from janus_jax.data.records import BadRecord, text_in


@dataclasses.dataclass(frozen=True)
class Item:
    """name: what tells its files from those of other items; prompt: what to draw or, with `source`, a picture file, how
    to edit it; number: its place among all, from 0; line: its line of the prompts file, where a scorer reads that."""

    name: str
    prompt: str
    number: int = 0
    source: Path | None = None
    line: str = ""


def raw_text(entry: dict, key: str) -> str:
    """A text as it stands, where a scorer compares it letter by letter. Raises BadRecord as `text_in` does."""
    text_in(entry, key)
    return entry[key]


def part_of_path(text: str) -> str:
    """A text that is one part of a path. Raises BadRecord where it is none."""
    if not text.strip() or "/" in text or "\0" in text or text in (".", ".."):
        raise BadRecord(f"{text[:80]!r} cannot be the name of a file")
    if len(text.encode("utf-8", "surrogatepass")) > 240:
        raise BadRecord(f"{text[:40]!r}... is too long for the name of a file: it may have 240 bytes")
    return text


class Names(set):
    """The names that a prompts file has given so far."""

    def new(self, name: str) -> str:
        """The name. Raises BadRecord where it was given before."""
        if name in self:
            raise BadRecord(f"{name} stands twice")
        self.add(name)
        return name


def picture_file(path: Path) -> Path:
    """A source picture. Raises BadRecord where there is none."""
    if not path.is_file():
        raise BadRecord(f"there is no picture {path}: say where the pictures lie with --images")
    return path

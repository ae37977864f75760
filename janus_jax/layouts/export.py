"""A benchmark's pictures, drawn chunk by chunk into trees.

A chunk is some whole items, the same ones whatever was drawn before and however many processes draw: so an export that
was stopped, or shared between processes, gives the same bytes also where the rounding depends on the batch.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from PIL import Image

from janus_jax.layouts.item import Item
from janus_jax.layouts.table import Suite
from janus_jax.layouts.tree import Tree
from janus_jax.sampling.edit import placed_back
from janus_jax.sampling.rollout import Trajectory
from janus_jax.sampling.rounds import TEXT_STEP, bucket
from janus_jax.sequences import images
from janus_jax.sequences.grammar import Grammar
from janus_jax.sequences.request import Request

PICKS = {"final": lambda t: t.rounds[t.final].image, "first": lambda t: t.rounds[0].image}


def chunks(items: Sequence[Item], samples: int, batch: int) -> list[Sequence[Item]]:
    """Whole items, about `batch` pictures at a time."""
    size = max(batch // samples, 1)
    return [items[begin : begin + size] for begin in range(0, len(items), size)]


def slots(model, processor, items: Iterable[Item]) -> int:
    """The text tokens that every prompt is padded to, so that all chunks run one program."""
    grammar, blank = Grammar.of(model.cfg, processor.tokenizer), Image.new("RGB", (1, 1))
    requests = [Request(item.prompt, item.source and blank) for item in items]
    return bucket(max(sum(map(len, grammar.prompt(request))) for request in requests), TEXT_STEP)


def export(
    suite: Suite,
    parts: Sequence[Sequence[Item]],
    trees: dict[str, Tree],
    draw: Callable[[list], Iterable[Trajectory]],
    mine: Sequence[int],
) -> Iterator[int]:
    """Draws those of the parts whose numbers are `mine` and are not there yet. trees: by which picture of a trajectory
    they show, "final" or "first"; draw: (Request, sample)s -> their trajectories, in order. Yields the number of
    pictures after each part, drawn or found."""
    for number in mine:
        part, total = parts[number], len(parts[number]) * suite.samples
        missing = {pick: tree for pick, tree in trees.items() if not tree.has(number)}
        if missing:
            sources = [item.source and images.read(item.source) for item in part]
            requests = [Request(item.prompt, source) for item, source in zip(part, sources, strict=True)]
            work = [(request, sample) for request in requests for sample in range(suite.samples)]
            drawn = list(draw(work))
            for pick, tree in missing.items():
                _write(suite, part, sources, drawn, tree, number, PICKS[pick])
        yield total


def _write(suite, part, sources, drawn, tree, number, pick):
    """Writes a part's files, and then its trajectories."""
    lines = []
    for i, (item, source) in enumerate(zip(part, sources, strict=True)):
        trajectories = drawn[i * suite.samples : (i + 1) * suite.samples]
        pictures = [pick(t) if source is None else placed_back(source, pick(t)) for t in trajectories]
        files = suite.files(item, pictures, source)
        for name, content in files.items():
            tree.write(name, content)
        lines += [line_of(item, t, list(files)) for t in trajectories]
    tree.keep(number, lines)


def line_of(item: Item, t: Trajectory, files: list[str]) -> dict:
    """What is kept of a trajectory."""
    rounds = [{"verdict": shot.verdict, "p_yes": shot.p_yes, "reason": shot.reason} for shot in t.rounds]
    return {
        "item": item.name,
        "prompt": item.prompt,
        "sample": t.sample,
        "rounds": rounds,
        "final": t.final,
        "files": files,
    }

"""Pictures with their prompts from a JSON lines file: {"image": FILE, "prompt": TEXT}, files relative to its own, and,
where somebody has said so, whether the picture is what the prompt asks for: "right": true or false."""

from pathlib import Path
from typing import NamedTuple

from janus_jax.data import records
from janus_jax.errors import UserError
from janus_jax.sequences import images


class Pair(NamedTuple):
    """image: a readable picture file; right: None where nothing is said of it."""

    image: Path
    prompt: str
    right: bool | None


def read_pairs(path, labelled: bool = False, tally: records.Tally | None = None, allow_outside=False) -> list[Pair]:
    """The pairs of a file. labelled: "right" is needed, and pictures of both kinds. tally: counts bad records;
    allow_outside: pictures may lie outside of the file's folder. Raises UserError where too many records are bad, or
    none is left."""
    folder, tally = Path(path).parent, tally or records.Tally(path)
    pairs = records.read(path, lambda line: _pair(line, folder, labelled, allow_outside), tally)
    tally.close()
    if not pairs:
        raise UserError(f"{path} holds no pair: write one JSON object per line")
    if labelled and len({pair.right for pair in pairs}) < 2:
        raise UserError(f"{path} holds pictures of one kind alone: give right ones and wrong ones")
    return pairs


def _pair(line, folder, labelled, allow_outside) -> Pair:
    entry = records.json_object(line)
    image = records.path_in(entry, "image", folder, allow_outside)
    pair = Pair(image, records.text_in(entry, "prompt"), entry.get("right"))
    if not (isinstance(pair.right, bool) or (pair.right is None and not labelled)):
        raise records.BadRecord('expected "right": true or false')
    try:
        images.read(image)
    except UserError as error:
        raise records.BadRecord(str(error), "a picture cannot be read") from error
    return pair

"""Edits from a JSON lines file: {"image": FILE, "instruction": TEXT}, files relative to its own; "instruction" may be a
list, whose members are turns."""

from pathlib import Path
from typing import NamedTuple

from janus_jax.data import records
from janus_jax.errors import UserError
from janus_jax.sequences import images


class Edit(NamedTuple):
    """image: a readable picture file; instructions: turns, each on the result of the one before."""

    image: Path
    instructions: list[str]


def read_edits(path, tally: records.Tally | None = None, allow_outside=False) -> list[Edit]:
    """The edits of a file. tally: counts bad records; allow_outside: pictures may lie outside of the file's folder.
    Raises UserError where too many records are bad, or none is left."""
    folder, tally = Path(path).parent, tally or records.Tally(path)
    edits = records.read(path, lambda line: _edit(line, folder, allow_outside), tally)
    tally.close()
    if not edits:
        raise UserError(f"{path} holds no edit: write one JSON object per line")
    return edits


def _edit(line, folder, allow_outside) -> Edit:
    entry = records.json_object(line)
    image, told = records.path_in(entry, "image", folder, allow_outside), entry.get("instruction")
    if told == []:
        raise records.BadRecord("the list of instructions is empty")
    turns = [{"instruction": turn} for turn in told] if isinstance(told, list) else [entry]
    edit = Edit(image, [records.text_in(turn, "instruction") for turn in turns])
    try:
        images.read(image)
    except UserError as error:
        raise records.BadRecord(str(error), "a picture cannot be read") from error
    return edit

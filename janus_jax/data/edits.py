"""Edits from a JSON lines file: {"image": FILE, "instruction": TEXT}, files relative to its own or to another folder;
"instruction" may be a list, whose members are turns. "image1" and "text", as released, are the same."""

from pathlib import Path
from typing import NamedTuple

from janus_jax.data import records
from janus_jax.errors import UserError
from janus_jax.sequences import images


class Edit(NamedTuple):
    """image: a readable picture file; instructions: turns, each on the result of the one before."""

    image: Path
    instructions: list[str]


def read_edits(
    path, tally: records.Tally | None = None, allow_outside=False, folder=None, turns: bool = True
) -> list[Edit]:
    """The edits of a file. tally: counts bad records; allow_outside: pictures may lie outside of the folder; folder:
    what files are relative to, None: the file's own; turns: more than one instruction may be there. Raises UserError
    where too many records are bad, or none is left."""
    folder, tally = Path(folder or Path(path).parent), tally or records.Tally(path)
    edits = records.read(path, lambda line: _edit(line, folder, allow_outside, turns), tally)
    tally.close()
    if not edits:
        raise UserError(f"{path} holds no edit: write one JSON object per line")
    return edits


def _edit(line, folder, allow_outside, turns) -> Edit:
    entry = records.json_object(line)
    picture, text = ("image1" if "image1" in entry else "image"), ("text" if "text" in entry else "instruction")
    image, told = records.path_in(entry, picture, folder, allow_outside), entry.get(text)
    if told == []:
        raise records.BadRecord("the list of instructions is empty")
    each = [{text: turn} for turn in told] if isinstance(told, list) else [entry]
    if len(each) > 1 and not turns:
        raise records.BadRecord("it has several instructions, which are turns: give one")
    edit = Edit(image, [records.text_in(turn, text) for turn in each])
    try:
        images.read(image)
    except UserError as error:
        raise records.BadRecord(str(error), "a picture cannot be read") from error
    return edit

"""The released metadata of edits: a JSON object per line, an instruction with the pictures before and after.

    {"sample_id": 7, "text": "make the cup red", "input": "7/a.png", "output": "7/b.png"}

As label_file's labelled pictures: the output is right, and the input, a copy, wrong. (That nothing has changed is all
that such a file can teach a judge.)
"""

from pathlib import Path

from janus_jax.data import records
from janus_jax.data.label_file import Labelled, Picture
from janus_jax.errors import UserError

COPY, DONE = "No, the picture is the same.", "Yes."  # the reasons


def read(path, folder, tally: records.Tally | None = None, allow_outside: bool = False) -> list[Labelled]:
    """Each line's instruction with two pictures, (source, target); paths are relative to `folder`, and inside it unless
    outside is allowed. tally: counts bad lines. Raises UserError where too many are bad, or no edit is left."""
    folder, tally, edits = Path(folder), tally or records.Tally(path), []
    for number, line in records.lines(path, tally):
        try:
            entry = records.json_object(line)
            instruction = records.text_in(entry, "text")
            source, target = (records.path_in(entry, key, folder, allow_outside) for key in ("input", "output"))
            tally.good += 1
        except UserError as error:
            tally.refuse(number, error)
        else:
            edits.append(Labelled(number, instruction, (Picture(source, 0.0, COPY), Picture(target, 1.0, DONE))))
    tally.check()
    if not edits:
        raise UserError(f"{path} holds no edit: write one JSON object per line, with text, input and output")
    return edits

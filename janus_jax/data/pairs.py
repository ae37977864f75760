"""Pictures with their prompts from a JSON lines file: {"image": FILE, "prompt": TEXT}, files relative to its own; of an
edit {"source": FILE, "image": FILE, "text": INSTRUCTION}. "text" and "prompt" are the same, and so are "image1", as
released, and "source". One key more may be a label: whether the picture is what is asked for.

A label is true or false, yes or no, or a number: 0 or 1, or a score, where a threshold says what is right.
"""

import math
from pathlib import Path
from typing import NamedTuple

from janus_jax.data import records
from janus_jax.errors import UserError
from janus_jax.sequences import images
from janus_jax.sequences.request import Request

WORDS = {"yes": True, "true": True, "no": False, "false": False}
RIGHT_FROM = 0.5  # the score from which on a picture is right


class Pair(NamedTuple):
    """image, source: readable picture files; source: of an edit, else None; right: None where no label was read."""

    image: Path
    prompt: str
    right: bool | None = None
    source: Path | None = None

    def request(self) -> Request:
        """What was asked for, its source picture read."""
        return Request(self.prompt, None if self.source is None else images.read(self.source))


def read_pairs(
    path,
    label: str | None = None,
    tally: records.Tally | None = None,
    allow_outside: bool = False,
    right_from: float = RIGHT_FROM,
    both: bool = True,
) -> list[Pair]:
    """The pairs of a file. label: the key of the label, None reads none; right_from: a score of at least so much is
    right; both: pictures of both labels are needed. tally: counts bad records; allow_outside: pictures may lie outside
    of the file's folder. Raises UserError where too many records are bad, or none is left."""
    folder, tally = Path(path).parent, tally or records.Tally(path)
    pairs = records.read(path, lambda line: _pair(line, folder, label, right_from, allow_outside), tally)
    tally.close()
    if not pairs:
        raise UserError(f"{path} holds no pair: write one JSON object per line")
    if label and both and len({pair.right for pair in pairs}) < 2:
        raise UserError(f"{path} holds pictures of one kind alone by {label!r}: give right ones and wrong ones")
    return pairs


def _pair(line, folder, label, right_from, allow_outside) -> Pair:
    entry = records.json_object(line)
    prompt = records.text_in(entry, "text" if "text" in entry and "prompt" not in entry else "prompt")
    name = next((name for name in ("source", "image1") if entry.get(name) is not None), None)
    source = records.path_in(entry, name, folder, allow_outside) if name else None
    image = records.path_in(entry, "image", folder, allow_outside)
    right = label_in(entry, label, right_from) if label else None
    for file in (image, source):
        try:
            if file:
                images.read(file)
        except UserError as error:
            raise records.BadRecord(str(error), "a picture cannot be read") from error
    return Pair(image, prompt, right, source)


def label_in(entry: dict, key: str, right_from: float = RIGHT_FROM) -> bool:
    """A label of an object. Raises BadRecord where it is missing, or none."""
    if key not in entry:
        raise records.BadRecord(f"{key!r} is missing")
    value = entry[key]
    if isinstance(value, str):
        word = value.strip().lower()
        value = WORDS[word] if word in WORDS else _number(word)
    if isinstance(value, bool):
        return value
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value >= right_from
    raise records.BadRecord(
        f"{key!r} is {str(entry[key])[:40]!r}: neither yes nor no, true nor false, nor a number",
        f"{key!r} is no label",
    )


def _number(word):
    try:
        return float(word)
    except ValueError:
        return None

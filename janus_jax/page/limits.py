"""What a request of the page may ask for: numbers, length of texts, size of pictures, time."""

import time
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from janus_jax.errors import UserError
from janus_jax.rules import FLAGS, Rule, whole
from janus_jax.sequences import images

WAITING = 16  # requests in the queue; one is answered at a time
CHARACTERS = 2000  # of a prompt, an instruction or a question
FILE_BYTES = 20 * 2**20
PIXELS = 25_000_000  # of a picture; a camera's has 12 million
NUMBERS = {
    "samples": whole(1, 8),
    "rounds": whole(1, 5),
    "guidance": Rule(least=0, most=20),
    "temperature": Rule(least=0.05, most=2),
    "seed": FLAGS["seed"],
}


def numbers(**values) -> dict:
    """The values, whole ones as int. Raises UserError for the first that breaks its rule, or is not given."""
    for name, value in values.items():
        if not NUMBERS[name].allows(value):
            raise UserError(f"{name} {'is empty' if value is None else f'is {value}'}: it must be {NUMBERS[name]}")
    return {name: int(value) if NUMBERS[name].kind is int else float(value) for name, value in values.items()}


def text(words: str | None, what: str) -> str:
    """A text without the blanks around it. Raises UserError where there is none, or too much; what: its name."""
    words = (words or "").strip()
    if not words:
        raise UserError(f"the {what} is empty: write one")
    if len(words) > CHARACTERS:
        raise UserError(f"the {what} has {len(words)} characters: this page takes {CHARACTERS} at most")
    return words


def picture(path: str | None, what: str = "picture") -> Image.Image:
    """A picture file as RGB. Raises UserError where there is none, it cannot be read, or is too large."""
    if path is None:
        raise UserError(f"there is no {what}: choose a file, or drop one on the field")
    try:
        width, height = _size(path)
        if width * height > PIXELS:
            raise UserError(f"the {what} has {width} x {height} pixels: this page takes {PIXELS:,} at most")
        return images.read(path)
    except UserError as error:
        raise UserError(str(error).replace(str(path), Path(path).name)) from error  # not where the server keeps it


def _size(path) -> tuple[int, int]:
    """Width and height from a file's header; nothing, where images.read will say why."""
    try:
        with Image.open(path) as header:
            return header.size
    except Exception:
        return 0, 0


def within(seconds: float, steps: Iterator) -> Iterator:
    """The steps of a generator, which is closed after so many seconds from its first step on: compiling comes before.
    Raises UserError then."""
    end = None
    for step in steps:
        end = end or time.monotonic() + seconds
        yield step
        if time.monotonic() > end:
            steps.close()
            raise UserError(
                f"stopped after {seconds:g} s, the limit of a request: ask for fewer samples or rounds, or have the "
                "page started with more --seconds"
            )

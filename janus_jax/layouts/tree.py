"""A tree of pictures that grows, and what lies beside it in its folder `reproduction`: the card that says how the
pictures were drawn, and a file of trajectories for each chunk that is done.

Every file appears whole. What was stopped leaves a partial file in `reproduction` alone: some scorers read every name
in the folders that they look at.
"""

import io
import json
import os
from pathlib import Path

import jax
from PIL import Image

from janus_jax.errors import UserError
from janus_jax.layouts import card

BESIDE = "reproduction"


class Tree:
    """The tree in the folder `out`."""

    def __init__(self, out):
        self.out = Path(out)

    def begin(self, settings: dict) -> None:
        """Writes the card, or finds it. settings: JSON values by name. Raises UserError where the folder holds
        something else, or pictures that were drawn otherwise."""
        path = self.out / BESIDE / "card.json"
        try:
            if not path.exists():
                if self.out.exists() and any(there.name != BESIDE for there in self.out.iterdir()):
                    raise UserError(f"{self.out} holds something else: choose another folder")
                self.write(f"{BESIDE}/card.md", card.readable(settings))
                self.write(f"{BESIDE}/card.json", json.dumps(settings, indent=1, ensure_ascii=False) + "\n")
                return
            began = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{self.out} cannot be gone on with ({error}): choose another folder") from error
        if differ := card.differences(began, json.loads(json.dumps(settings))):
            raise UserError(f"{self.out} was drawn otherwise ({differ}): choose another folder")

    def has(self, chunk: int) -> bool:
        """Whether a chunk's pictures are all there."""
        try:
            lines = (self.out / self._trajectories(chunk)).read_bytes().splitlines()  # text would end lines at U+2028
            return all((self.out / name).exists() for line in lines for name in json.loads(line)["files"])
        except (OSError, ValueError):
            return False

    def keep(self, chunk: int, lines: list[dict]) -> None:
        """Writes the trajectories of a chunk, whose pictures are there."""
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        self.write(self._trajectories(chunk), text)

    @staticmethod
    def _trajectories(chunk):
        return f"{BESIDE}/trajectories/{chunk:05}.jsonl"

    def write(self, name: str, content: Image.Image | str) -> None:
        """Writes a text or a picture, as PNG or by its name as JPEG. Raises UserError where there is no room."""
        path, scratch = self.out / name, self.out / BESIDE / f".partial.{jax.process_index()}.{os.getpid()}"
        try:
            for folder in (path.parent, scratch.parent):
                folder.mkdir(parents=True, exist_ok=True)
            scratch.write_bytes(content.encode() if isinstance(content, str) else encoded(content, path.suffix))
            scratch.replace(path)
        except OSError as error:
            scratch.unlink(missing_ok=True)
            raise UserError(f"cannot write {path}: {error.strerror}; make room, and start again") from error

    def finish(self, files: dict[str, str]) -> None:
        """Writes what belongs to all pictures, and removes what was left half-written."""
        for name, text in files.items():
            self.write(name, text)
        for scratch in (self.out / BESIDE).glob(".partial.*"):
            scratch.unlink(missing_ok=True)


def encoded(picture: Image.Image, suffix: str) -> bytes:
    """A picture file's bytes."""
    buffer = io.BytesIO()
    if suffix.lower() in (".jpg", ".jpeg"):
        picture.save(buffer, "JPEG", quality=95, subsampling=0)
    else:
        picture.save(buffer, "PNG")
    return buffer.getvalue()

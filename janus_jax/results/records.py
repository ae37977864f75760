"""JSON lines that grow while a command works, so that a command that was stopped goes on where it was."""

import json
from pathlib import Path

from janus_jax import cli
from janus_jax.errors import UserError


class Records:
    """A file of JSON objects, one per line, and beside it the settings that made them.

    `found`: the objects that lie there already; a last line that a kill cut short is taken away. Raises UserError where
    the file was made with other settings, or cannot be read or written.
    """

    def __init__(self, path: Path, settings: dict):
        """settings: JSON values by name."""
        self._path, self._beside = Path(path), Path(path).with_suffix(".settings.json")
        self._settings = json.loads(json.dumps(settings))
        self.found = self._read() if self._path.exists() else []

    def _read(self):
        try:
            began = json.loads(self._beside.read_text(encoding="utf-8")) if self._beside.exists() else None
            content = self._path.read_bytes()
        except (OSError, ValueError) as error:
            raise UserError(f"{self._path} cannot be gone on with ({error}): choose another --out") from error
        if began is None:
            raise UserError(f"{self._path} is there already, made by something else: choose another --out")
        names = sorted(began.keys() | self._settings.keys())
        differ = [
            f"{name} was {began.get(name)!r}, is {self._settings.get(name)!r}"
            for name in names
            if began.get(name) != self._settings.get(name)
        ]
        if differ:
            raise UserError(f"{self._path} was made otherwise ({'; '.join(differ)}): choose another --out")
        whole, newline, torn = content.rpartition(b"\n")
        try:
            if torn:
                with open(self._path, "r+b") as file:
                    file.truncate(len(whole) + len(newline))
            return [json.loads(line) for line in whole.split(b"\n") if line.strip()]
        except (OSError, ValueError) as error:
            raise UserError(f"{self._path} cannot be gone on with ({error}): choose another --out") from error

    def append(self, objects) -> None:
        """Writes objects, a line each. Raises UserError where there is no room; what was written before is whole."""
        if not self._beside.exists():
            cli.write(self._beside, json.dumps(self._settings, indent=1) + "\n")
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.writelines(json.dumps(each, ensure_ascii=False) + "\n" for each in objects)
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror}; make room, and start again") from error
        self.found += objects

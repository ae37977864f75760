"""Files of records, one per line: how they are read, and what becomes of bad ones.

A record that cannot be used is left out and counted by its reason, up to a share of all; then the file is refused.
"""

import codecs
import dataclasses
import json
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from janus_jax.errors import UserError

MOST_BAD = 0.1  # share of the records
EXAMPLES = 3  # reasons of which the summary names the first record


class BadRecord(UserError):
    """What is wrong with one record. kind: the same in words that it shares with others; None: the very same."""

    def __init__(self, reason: str, kind: str | None = None):
        super().__init__(reason)
        self.kind = kind or reason


@dataclasses.dataclass
class Tally:
    """Counts the records of a file. most_bad: the share of bad ones that is left out; with 0 the first one is an error.
    bad: kind -> how many, and the first of them as a line."""

    path: Path
    most_bad: float = MOST_BAD
    good: int = 0
    bad: dict[str, tuple[int, str]] = dataclasses.field(default_factory=dict)

    @property
    def left_out(self) -> int:
        """How many records are bad."""
        return sum(count for count, _ in self.bad.values())

    def refuse(self, line: int, error: UserError) -> None:
        """Counts a record of that line as bad. Raises UserError where none may be."""
        reason = f"line {line}: {error}"
        if not self.most_bad:
            raise UserError(f"{self.path}, {reason}") from error
        kind = getattr(error, "kind", str(error))
        count, first = self.bad.get(kind, (0, reason))
        self.bad[kind] = count + 1, first

    def check(self, total: int | None = None) -> None:
        """Raises UserError where more than the allowed share of `total` records is bad (None: of those seen)."""
        total = max(total or 0, self.good + self.left_out)
        if self.left_out > self.most_bad * total:
            first = next(iter(self.bad.values()))[1]
            others = f": {self.summary()}" if len(self.bad) > 1 else ""
            raise UserError(
                f"{self.path}, {first} ({self.left_out} of {total} records are bad, more than the share "
                f"{self.most_bad:g} that is left out{others})"
            )

    def summary(self) -> str:
        """How many records were left out, and the first of each kind."""
        kinds = sorted(self.bad.items(), key=lambda item: -item[1][0])
        said = [f"{count} x {kind} (first: {first})" if first else kind for kind, (count, first) in kinds[:EXAMPLES]]
        said += [f"{len(kinds) - EXAMPLES} more reasons"] if len(kinds) > EXAMPLES else []
        return f"left out {self.left_out} of {self.good + self.left_out} records: {'; '.join(said)}"

    def close(self) -> None:
        """`check`, and says in one line what was left out, if anything was."""
        self.check()
        if self.bad:
            print(f"{self.path}: {self.summary()}", file=sys.stderr, flush=True)


def lines(path, tally: Tally) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of the lines of a UTF-8 file, with or without a byte order mark, that are not empty. Lines
    end with a newline, and with no other character that Unicode calls one. Raises UserError where the file cannot be
    read, or is no regular file: a named pipe would be waited for."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(0, "it is no regular file")
        with open(path, "rb") as file:
            for number, raw in enumerate(file, 1):
                if number == 1 and raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    raise OSError(0, "it is UTF-16 text, save it as UTF-8")
                try:
                    text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError:
                    tally.refuse(number, BadRecord("it is not UTF-8 text"))
                    continue
                if text.strip():
                    yield number, text.removesuffix("\n").removesuffix("\r")
    except (OSError, ValueError) as error:  # a path that is none, too
        if isinstance(error, UserError):
            raise
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def read(path, parse: Callable[[str], object], tally: Tally) -> list:
    """parse(line) of every line; a line for which it raises UserError counts as bad."""
    found = []
    for number, text in lines(path, tally):
        try:
            found.append(parse(text))
            tally.good += 1
        except UserError as error:
            tally.refuse(number, error)
    return found


def json_object(line: str) -> dict:
    """A JSON object. Raises BadRecord for anything else."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadRecord(
            f"it is not JSON ({getattr(error, 'msg', 'too deep or too long')})", "it is not JSON"
        ) from error
    if not isinstance(entry, dict):
        raise BadRecord("it is no JSON object")
    return entry


def text_in(entry: dict, key: str) -> str:
    """A text of an object, stripped. Raises BadRecord where it is missing, empty, or none."""
    if key not in entry:
        raise BadRecord(f"{key!r} is missing")
    text = entry[key]
    if not isinstance(text, str):
        raise BadRecord(f"{key!r} is no text")
    if not text.strip():
        raise BadRecord(f"the {key} is empty")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRecord(f"{key!r} has half a character, a lone surrogate") from error
    return text.strip()


def path_in(entry: dict, key: str, folder: Path, allow_outside: bool = False) -> Path:
    """A path of an object, relative to `folder`. Raises BadRecord where it leads out of it, unless that is allowed;
    links that lie in the folder are followed."""
    name = text_in(entry, key)
    if "\0" in name:  # no path has one, and what reads it may stop there
        raise BadRecord(f"the path {name[:80]!r} has a NUL character", "a path has a NUL character")
    home = os.path.abspath(folder)
    if not (allow_outside or Path(os.path.normpath(os.path.join(home, name))).is_relative_to(home)):
        raise BadRecord(
            f"the path {name[:80]!r} leads out of {folder}: allow it with --allow-outside, or move the file",
            "a path leads out of the folder",
        )
    return Path(folder) / name


def add_flags(parser) -> None:
    """The flags of commands that read records."""
    parser.add_argument("--strict", action="store_true", help="stop at the first bad record (default: leave some out)")
    parser.add_argument("--most-bad", type=float, default=MOST_BAD, help="the share of bad records that is left out")
    parser.add_argument(
        "--allow-outside", action="store_true", help="take pictures from outside of their folder (default: refuse)"
    )


def tally_of(args, path) -> Tally:
    """The Tally that the flags ask for. Raises UserError for a share that is none."""
    if not 0 <= args.most_bad <= 1:
        raise UserError(f"--most-bad is {args.most_bad}: it is a share, between 0 and 1")
    return Tally(path, 0.0 if args.strict else args.most_bad)

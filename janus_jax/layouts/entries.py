"""The entries of a JSON file, with the lines on which they begin, so that a fault can be named."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from janus_jax.errors import UserError

GAP = re.compile(r"\s*")


def entries(path, kind: type) -> Iterator[tuple[int, str | None, object]]:
    """(line from 1, key, value) of what a JSON file holds: an object's values or, with kind list, those of an array,
    whose keys are None. Raises UserError, with the line, where the file is no such JSON."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is not UTF-8 text") from error
    decoder, opens, closes = json.JSONDecoder(), *("{}" if kind is dict else "[]")

    def line(at):
        return text.count("\n", 0, at) + 1

    def refuse(at, wanted):
        found = repr(text[at : at + 1]) if at < len(text) else "the end of the file"
        raise UserError(f"{path}, line {line(at)}: it is not JSON: {wanted} should stand where {found} does")

    def value(at):
        try:
            return decoder.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {error.lineno}: it is not JSON ({error.msg})") from error
        except RecursionError as error:
            raise UserError(f"{path}, line {line(at)}: it is not JSON (too deep)") from error

    def gap(at):
        return GAP.match(text, at).end()

    at = gap(0)
    if text[at : at + 1] != opens:
        refuse(at, f"a JSON {'object' if kind is dict else 'array'}")
    at = gap(at + 1)
    while text[at : at + 1] != closes:
        began, key = at, None
        if kind is dict:
            key, at = value(at) if text[at : at + 1] == '"' else refuse(at, "a key in quotes")
            at = gap(at)
            if text[at : at + 1] != ":":
                refuse(at, "a colon")
            at = gap(at + 1)
        found, at = value(at)
        yield line(began), key, found
        at = gap(at)
        if text[at : at + 1] == ",":
            at = gap(at + 1)
            if text[at : at + 1] == closes:
                refuse(at, "another entry")
        elif text[at : at + 1] != closes:
            refuse(at, f"a comma or {closes!r}")
    if (at := gap(at + 1)) < len(text):
        refuse(at, "the end of the file")


def read(path, kind: type, parse: Callable[[str | None, dict], object]) -> list:
    """parse(key, entry) of every entry, which is an object. Raises UserError with its line for the first that is none,
    or that `parse` refuses."""
    parsed = []
    for line, key, entry in entries(path, kind):
        try:
            if not isinstance(entry, dict):
                raise UserError("it is no JSON object")
            parsed.append(parse(key, entry))
        except UserError as error:
            raise UserError(f"{path}, line {line}: {error}") from error
    return parsed

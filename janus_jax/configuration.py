"""What a configuration file says of its keys: the comments in its source, and in that of what it builds on.

Read from the syntax tree, so that a comment stands in one place alone, beside its value.
"""

import ast
import importlib.util
import io
import itertools
import re
import textwrap
import tokenize
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

WIDTH = 100
COLUMN = 40  # where comments begin
LONGEST = 300  # characters of a value


class Comment(NamedTuple):
    """above: lines over a key, a heading for those that follow; beside: what stands to the right of its value."""

    above: str = ""
    beside: str = ""


def comments(path: Path) -> dict[str, Comment]:
    """{key: comment}, keys as "reward.url", in the order of the source. Empty for a file that cannot be read."""
    try:
        source = Path(path).read_text(encoding="utf-8")
        return _File(source).comments()
    except (OSError, SyntaxError, ValueError):
        return {}


class _File:
    """One source file: its tree, and its comments by line."""

    def __init__(self, source: str):
        self._tree = ast.parse(source)
        self._alone, self._beside = {}, {}
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                alone = not token.line[: token.start[1]].strip()
                (self._alone if alone else self._beside)[token.start[0]] = token.string.lstrip("#").strip()

    def comments(self) -> dict[str, Comment]:
        """Of the statements of get_config."""
        found = {}
        for function in self._tree.body:
            if isinstance(function, ast.FunctionDef) and function.name == "get_config":
                for statement in function.body:
                    found |= self._statement(statement)
        return found

    def _statement(self, node) -> dict[str, Comment]:
        if isinstance(node, ast.Assign):
            target = ast.unparse(node.targets[0])
            if target == "config":  # of another file: config = shapes_rl.get_config()
                return self._built_on(node.value)
            if target.startswith("config."):
                key, own = target.removeprefix("config."), self._of(node, node)
                if isinstance(node.value, ast.Name) and not any(own):
                    file, named = self._named(node.value.id)
                    own = file._of(named, named) if named else own
                return {key: own} | self._entries(node.value, key + ".", node.lineno)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):  # use_slice(config, name, SLICES, USUAL)
            return self._entries(node.value, "", node.lineno)
        return {}

    def _entries(self, node, prefix, line) -> dict[str, Comment]:
        """Of the entries of a dict that stands somewhere in a value, as itself or by its name. line: where the
        statement begins, whose comments are not those of an entry in that line."""
        found = {}
        if isinstance(node, ast.Dict):
            pairs = [(key.value, value, key) for key, value in zip(node.keys, node.values, strict=True) if key]
        elif isinstance(node, ast.Call):
            pairs = [(word.arg, word.value, word) for word in node.keywords if word.arg]
            for each in node.args:
                found |= self._entries(each, prefix, line)
        elif isinstance(node, ast.Name):
            file, named = self._named(node.id)
            return file._entries(named.value, prefix, 0) if named and not isinstance(named.value, ast.Name) else {}
        else:
            return {}
        for name, value, place in pairs:
            found[f"{prefix}{name}"] = self._of(place, value) if place.lineno > line else Comment()
            found |= self._entries(value, f"{prefix}{name}.", place.lineno)
        return found

    def _named(self, name):
        """(the file, the assignment or None) of a name of this module, or one that it imports."""
        for node in self._tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
                return self, node
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if (alias.asname or alias.name) == name and (file := _module(node.module)):
                        return file._named(alias.name)
        return self, None

    def _built_on(self, node) -> dict[str, Comment]:
        """Of the file whose get_config a value calls."""
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        for statement in self._tree.body:
            for alias in getattr(statement, "names", ()):
                name, module = alias.asname or alias.name, getattr(statement, "module", None)
                if called == name:  # from configs.shapes_rl import get_config as base
                    file = _module(module)
                elif called == f"{name}.get_config":  # from configs import shapes_rl; import configs.shapes_rl
                    file = _module(f"{module}.{alias.name}" if module else alias.name)
                else:
                    continue
                return file.comments() if file else {}
        return {}

    def _of(self, first, last) -> Comment:
        """The comments of what begins with one node and ends with another."""
        above, line = [], first.lineno - 1
        while line in self._alone:
            above.insert(0, self._alone[line])
            line -= 1
        beside = self._beside.get(last.end_lineno) or self._beside.get(first.lineno, "")
        return Comment(" ".join(above), beside)


def _module(name) -> _File | None:
    """The source of a module; None where there is none to read."""
    try:
        return _File(Path(importlib.util.find_spec(name).origin).read_text(encoding="utf-8"))
    except (ImportError, AttributeError, OSError, SyntaxError, ValueError, TypeError):
        return None


def _flat(config, prefix=""):
    """(key, value) of all that is set, inner ones as "reward.url"."""
    for key in config:
        value = config[key]
        if isinstance(value, (ConfigDict, dict)) and len(value):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", dict(value) if isinstance(value, ConfigDict) else value


def described(config, path: Path) -> str:
    """All keys of a configuration with their values and comments, in the order of the file that it was read from."""
    said, values, lines = comments(path), dict(_flat(config)), []
    places = {key: place for place, key in enumerate(said)}
    for key in sorted(values, key=lambda key: places.get(key, len(places))):
        parents = [*itertools.accumulate(key.split(".")[:-1], "{}.{}".format)]
        headings = [" ".join(said.pop(parent)) for parent in parents if parent in said]
        above, beside = said.get(key, Comment())
        for heading in filter(None, map(str.strip, (*headings, above))):
            lines += ["", *textwrap.wrap(heading, WIDTH, initial_indent="  # ", subsequent_indent="  # ")]
        value = repr(values[key])
        lines += _row(f"  --config.{key}={value if len(value) < LONGEST else value[:LONGEST] + '...'}", beside)
    return "\n".join(lines)


def _row(flag: str, comment: str) -> list[str]:
    wrapped = textwrap.wrap(comment, WIDTH - COLUMN)
    if wrapped and len(flag) < COLUMN - 1:
        flag = flag.ljust(COLUMN) + wrapped.pop(0)
    return [flag, *(" " * COLUMN + line for line in wrapped)]


MODEL = re.compile(r"--?config\.model\.([\w.]+)=(.*)", re.DOTALL)


def without_model(argv) -> tuple[list[str], dict[str, str]]:
    """(the other arguments, {path: text} of those that set an entry of config.model): these need not be there yet."""
    found = {match[1]: match[2] for arg in argv if (match := MODEL.fullmatch(arg))}
    return [arg for arg in argv if not MODEL.fullmatch(arg)], found


def set_model(config, entries: dict[str, str]) -> None:
    """Sets entries of config.model, as "llama.layers", to what their texts say. Raises KeyError where there is no
    config.model, and TypeError for a value of another type than is there."""
    words = {"true": True, "false": False}
    with config.unlocked():
        for path, text in entries.items():
            node = config["model"]
            *parts, last = path.split(".")
            for part in parts:
                if part not in node:
                    node[part] = ConfigDict()
                node = node[part]
            try:
                node[last] = words[text.lower()] if text.lower() in words else ast.literal_eval(text)
            except (ValueError, SyntaxError):
                node[last] = text

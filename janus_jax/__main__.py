"""Lists the commands, or runs one: python -m janus_jax [COMMAND ...], and janus-jax [COMMAND ...] once installed."""

import ast
import runpy
import sys
from pathlib import Path

from janus_jax import cli
from janus_jax.errors import UserError

PACKAGE = Path(__file__).parent


def commands() -> dict[str, str]:
    """Of each command, which is a module with a main(argv), what it does: its docstring up to the first colon."""
    found = {}
    for path in sorted(PACKAGE.glob("[!_]*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body):
            first = " ".join(ast.get_docstring(tree).split("\n\n")[0].split())
            found[path.stem] = first.partition(":")[0].rstrip(".")
    return found


def listed() -> str:
    """The commands, a line each."""
    known = commands()
    width = max(map(len, known)) + 2
    rows = "\n".join(f"  {name:<{width}}{what}" for name, what in known.items())
    return f"python -m janus_jax.COMMAND, or janus-jax COMMAND; --help explains each:\n\n{rows}"


def main(argv):
    """Runs argv[0] with the other arguments, as python -m janus_jax.COMMAND does."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(listed())
        return
    name = argv[0].replace("-", "_")
    if name not in commands():
        raise UserError(f"there is no command {argv[0]!r}: python -m janus_jax lists them")
    sys.argv = [f"janus-jax {name}", *argv[1:]]
    runpy.run_module(f"janus_jax.{name}", run_name="__main__", alter_sys=True)


def script() -> None:
    """The command janus-jax."""
    cli.run(main)


if __name__ == "__main__":
    script()

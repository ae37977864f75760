"""Packages in an order: each imports those below it, and inside a package no import runs in a circle."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "janus_jax"
# From the top to the ground; a command is a module of its own, above all packages.
ORDER = (
    *("layouts", "page", "results", "aot", "rl", "training", "rewards", "sampling", "data", "checkpoints", "models"),
    *("shapes", "sequences", "parallel"),
)
GROUND = ("cli", "compilation", "configuration", "errors", "heap", "profile", "rules", "")  # "": the package itself


def name_of(path):
    """Dotted name inside the package; "" is the package itself."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".")


SOURCES = {name_of(path): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
COMMANDS = {name for name, tree in SOURCES.items() if "'__main__'" in ast.dump(tree)}


def imports(name):
    """{(module inside the package, imported name or None)} and {foreign modules}, wherever in the file they stand."""
    own, foreign = set(), set()
    for node in ast.walk(SOURCES[name]):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            pairs = [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            pairs = [(alias.name, None) for alias in node.names]
        else:
            continue
        for module, item in pairs:
            if module.split(".")[0] != "janus_jax":
                foreign.add(module.split(".")[0])
                continue
            inside = module.removeprefix("janus_jax").lstrip(".")
            submodule = f"{inside}.{item}".lstrip(".")
            own.add((submodule, None) if submodule in SOURCES else (inside, item))
    return own, foreign


def place(name):
    """A module's height: commands above packages in their order, above the ground."""
    if name in COMMANDS:
        return len(ORDER) + 1
    top = name.split(".")[0]
    return 0 if name in GROUND else len(ORDER) - ORDER.index(top)


@pytest.mark.parametrize("name", SOURCES)
def test_imports_go_down(name):
    if name not in COMMANDS and name not in GROUND:
        assert name.split(".")[0] in ORDER, f"janus_jax/{name} is in no package: give it a place in ORDER"
    for module, _ in imports(name)[0]:
        assert module not in COMMANDS, f"{name} imports the command {module}: what both need belongs below"
        assert place(module) <= place(name), f"{name} imports {module}, which is above it"


def test_no_circles():
    inside = {
        name: {module for module, _ in imports(name)[0] if module.split(".")[0] == name.split(".")[0]}
        for name in SOURCES
    }
    list(graphlib.TopologicalSorter(inside).static_order())  # raises CycleError, which names it


def reach(name, seen=None):
    """The module and all it imports inside the package, directly or not, with the packages they lie in."""
    seen = set() if seen is None else seen
    if name not in seen:
        seen.add(name)
        for module, _ in imports(name)[0] | {(name.rpartition(".")[0], None)}:
            reach(module, seen)
    return seen


WORKERS = [
    name
    for name in SOURCES
    if name.split(".")[0] in ("data", "shapes", "sequences", "rewards", "reward_check") and name != "rewards.own_model"
]


@pytest.mark.parametrize("name", WORKERS)
def test_workers_never_import_jax(name):
    for module in reach(name):
        assert not imports(module)[1] & {"jax", "jaxlib", "flax", "optax"}, f"{name} reaches jax through {module}"


def test_towers_know_nothing_of_each_other():
    towers = {"models.llama", "models.siglip", "models.vq"}
    for tower in towers:
        assert not towers & {module for module, _ in imports(tower)[0]} - {tower}
    for name in ("training.losses", "rl.advantages", "sampling.density"):
        assert not {module for module in reach(name) if module.startswith("models")}


def test_importing_the_package_is_light():
    code = "import sys, janus_jax; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert "janus_jax" in run.stdout.split()
    assert not {"torch", "tensorflow", "transformers"} & set(run.stdout.split())

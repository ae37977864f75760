"""Imports go down only: the layers of the package, read from its source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "janus_jax"
LAYERS = [
    "errors pod local sharding batch tensorfiles tokens images processor density losses advantages optim metrics",
    "models data shapes rewards",
    "sample train_step checkpoint loading topology hlo program",
    "introspect understand appraisal retention rollout packed ppo policy scored experience scores self_judge sight "
    "storyboard loop cli resumption supervised rehearsal __init__",
    # the commands
    "train_vq train_sft train_rl cache_codes cache_labels label_drawings generate evaluate chat judge compare convert "
    "report reward_check ablate compile",
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names.split()}
# What a command may take from another: helpers, by name. Think of a lower place before adding one.
SHARED = {
    ("evaluate", "generate"): {"add_sampling_flags", "sampling_of"},
    ("judge", "chat"): {"add_sampling_flags", "sampling_of"},
    ("train_rl", "report"): {"write"},
    ("ablate", "compare"): {"across", "number", "paired", "read"},
}


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


def level(name):
    return LEVEL[name.split(".")[0] or "__init__"]


@pytest.mark.parametrize("name", SOURCES)
def test_imports_go_down(name):
    top = name.split(".")[0] or "__init__"
    assert top in LEVEL, f"janus_jax/{top} is in no layer: place it in LAYERS"
    assert (name in COMMANDS) == (top in LAYERS[-1].split()), f"{name}: commands, and they alone, are the last layer"
    for module, item in imports(name)[0]:
        assert level(module) <= level(name), f"{name} imports {module}, which is above it"
        if module in COMMANDS:
            assert item in SHARED.get((name, module), ()), f"{name} takes {item} from the command {module}"


def test_shared_helpers_are_used():
    for (name, module), items in SHARED.items():
        assert {item for other, item in imports(name)[0] if other == module} == items


def reach(name, seen=None):
    """The module and all it imports inside the package, directly or not, with the packages they lie in."""
    seen = set() if seen is None else seen
    if name not in seen:
        seen.add(name)
        for module, _ in imports(name)[0] | {(name.rpartition(".")[0], None)}:
            reach(module, seen)
    return seen


WORKERS = [name for name in SOURCES if name.split(".")[0] in ("data", "shapes", "rewards", "reward_check")]


@pytest.mark.parametrize("name", WORKERS)
def test_workers_never_import_jax(name):
    for module in reach(name):
        assert not imports(module)[1] & {"jax", "jaxlib", "flax", "optax"}, f"{name} reaches jax through {module}"


def test_towers_know_nothing_of_each_other():
    towers = {"models.llama", "models.siglip", "models.vq"}
    for tower in towers:
        assert not towers & {module for module, _ in imports(tower)[0]} - {tower}
    for name in ("losses", "advantages", "density"):
        assert not {module for module in reach(name) if module.startswith("models")}


def test_importing_the_package_is_light():
    code = "import sys, janus_jax; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    assert "janus_jax" in run.stdout.split()
    assert not {"torch", "tensorflow", "transformers"} & set(run.stdout.split())

"""The documents: what they link to, name and show is there, and lines are short enough to read."""

import ast
import importlib
import itertools
import re
import runpy
import shlex
import types
from pathlib import Path

import pytest
from PIL import Image

from janus_jax import cli
from janus_jax.checkpoints import loading
from janus_jax.data import caption_file
from janus_jax.rewards.settings import KINDS
from janus_jax.rl.advantages import ESTIMATORS
from janus_jax.rl.credit import CREDITS
from janus_jax.sequences.request import Request
from janus_jax.training import settings, sft

ROOT = Path(__file__).parent.parent
DOCS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "janus_jax/assets/README.md"]
CODE = re.compile(r"^```[\s\S]*?^```$|^(?: {4}.*\n?)+|`[^`\n]+`", re.MULTILINE)
PATH = re.compile(r"(?<![\w/.:-])(?:janus_jax|configs|launch|docs|tests|notebooks|benchmarks)/[\w./*-]*")


def each(path):
    return pytest.mark.parametrize("path", path, ids=lambda path: str(path.relative_to(ROOT)))


def anchors(path):
    """The anchors of a page's headings, as forges make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def shown(path):
    """What stands in backticks or indented by four."""
    return "\n".join(CODE.findall(path.read_text()))


@each(DOCS)
def test_links_resolve(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        there = path.parent / file if file else path
        assert there.exists(), f"{path.name}: nothing at {target}"
        assert not anchor or anchor in anchors(there), f"{path.name}: {file} has no heading for #{anchor}"


@each(DOCS)
def test_named_files_are_there(path):
    for name in PATH.findall(shown(path)):
        name = name.rstrip(".")
        assert any(ROOT.glob(name.rstrip("/"))), f"{path.name}: there is no {name}"


@each(DOCS)
def test_named_commands_are_there(path):
    for name in re.findall(r"python -m janus_jax\.(\w+)", path.read_text()):
        assert (ROOT / f"janus_jax/{name}.py").is_file(), f"{path.name}: there is no command {name}"


@each(DOCS)
def test_snippets_are_python(path):
    for snippet in re.findall(r"^```python\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL):
        ast.parse(snippet)


@each(DOCS)
def test_lines_are_short(path):
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        is_row = line.startswith("|") and path.name != "README.md"
        assert is_row or len(line) <= 120, f"{path.name}, line {number} has {len(line)} characters"
    assert path != ROOT / "README.md" or len(lines) <= 180, f"README.md has {len(lines)} lines: move some to docs/"


def test_every_page_is_in_the_index():
    linked = re.findall(r"\]\(([\w-]+\.md)\)", (ROOT / "docs/README.md").read_text())
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert sorted(linked) == sorted(pages), f"docs/README.md: link {', '.join(pages - set(linked)) or 'each page once'}"


def test_made_pages_are_what_the_code_says():
    """metrics.md and api.md; the first line that differs says which entry is of an older code."""
    for name, content in runpy.run_path(str(ROOT / "docs/make.py"))["pages"]().items():
        written = (ROOT / "docs" / name).read_text().splitlines()
        for here, there in itertools.zip_longest(written, content.splitlines()):
            assert here == there, f"docs/{name} is not what the code says: run python docs/make.py"


COMMAND = re.compile(r"^ {4}python -m janus_jax\.(\w+)((?:.*\\\n)*.*)$", re.MULTILINE)


def commands(path):
    """(command, its arguments) of each command that a page shows, as a shell would split them."""
    for name, rest in COMMAND.findall(path.read_text()):
        yield name, shlex.split(rest.replace("\\\n", " "), comments=True)


@each([ROOT / "docs/your-own.md"])
def test_shown_commands_are_understood(path, tmp_path, monkeypatch):
    """Each is run up to where it would load a model or a file of the reader's: flags, settings and their rules."""
    monkeypatch.chdir(ROOT)
    shown = list(commands(path))
    assert len(shown) == len(re.findall(r"python -m janus_jax", path.read_text())) >= 8
    for name, arguments in shown:
        dry_run(name, arguments, tmp_path, monkeypatch)


def dry_run(name, arguments, tmp_path, monkeypatch):
    """Runs the beginning of a command. Fails for an unknown flag, an unknown setting, or one that breaks its rule."""
    command = importlib.import_module(f"janus_jax.{name}")
    if any(argument.startswith("--config") for argument in arguments):
        if "--workdir" in arguments:
            arguments[arguments.index("--workdir") + 1] = str(tmp_path / "w")
        config, _ = cli.parse_config(arguments, "", workdir="--workdir" in arguments)
        if name == "train_sft":
            settings.check_sft(config)
            sft.buckets_of(config, types.SimpleNamespace(shape={"data": 1, "fsdp": 1}))
        if name in ("train_rl", "reward_check"):
            settings.check_rl(config, CREDITS, ESTIMATORS)
            assert config.reward.kind in KINDS
        return

    class Reached(Exception):
        """The command is about to load a model: its flags are in order."""

    def reached(*_, **__):
        raise Reached

    with monkeypatch.context() as patch:
        for module, function in ((cli, "writable"), (loading, "load"), (loading, "find")):
            patch.setattr(module, function, reached)
        patch.setattr("pathlib.Path.read_text", reached)
        with pytest.raises(Reached):
            command.main(arguments)


def test_your_own_pages_files_work(tmp_path, monkeypatch):
    """The files that docs/your-own.md has the reader write: a judge, and twenty captioned pictures."""
    files = dict(
        re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```$", (ROOT / "docs/your-own.md").read_text(), re.M | re.S)
    )
    assert set(files) == {"my_reward.py", "make_pictures.py"}
    monkeypatch.chdir(tmp_path)
    exec(compile(files["make_pictures.py"], "make_pictures.py", "exec"), {})
    (captioned,) = {len(caption_file.read("captioned/captions.jsonl", "captioned"))}
    assert captioned == len(list(Path("captioned").glob("*.png"))) == 20
    judge = {}
    exec(compile(files["my_reward.py"], "my_reward.py", "exec"), judge)
    pictures = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    assert judge["score"]([Request("a"), Request("b")], pictures) == {"redness": [1.0, 0.0]}


def test_every_file_has_its_line():
    listed = re.findall(r"^\| `([\w/]+\.py)` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    files = {str(file.relative_to(ROOT / "janus_jax")) for file in (ROOT / "janus_jax").rglob("[!_]*.py")}
    missing, gone = sorted(files - set(listed)), sorted(set(listed) - files)
    twice = sorted({file for file in listed if listed.count(file) > 1})
    assert not missing, f"CONTRIBUTING.md, Every file: add a line for {', '.join(missing)}"
    assert not gone, f"CONTRIBUTING.md, Every file: there is no {', '.join(gone)}"
    assert not twice, f"CONTRIBUTING.md, Every file: {', '.join(twice)} stands there twice"

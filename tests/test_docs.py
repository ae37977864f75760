"""The documents: what they link to, name and show is there, and lines are short enough to read."""

import ast
import re
from pathlib import Path

import pytest

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


def test_every_page_is_linked_from_the_readme():
    linked = re.findall(r"\]\((docs/\w+\.md)", (ROOT / "README.md").read_text())
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} == set(linked)


def test_every_file_has_its_line():
    listed = re.findall(r"^\| `([\w/]+\.py)` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    files = {str(file.relative_to(ROOT / "janus_jax")) for file in (ROOT / "janus_jax").rglob("[!_]*.py")}
    missing, gone = sorted(files - set(listed)), sorted(set(listed) - files)
    assert not missing, f"CONTRIBUTING.md, Every file: add a line for {', '.join(missing)}"
    assert not gone, f"CONTRIBUTING.md, Every file: there is no {', '.join(gone)}"

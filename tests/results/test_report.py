"""The static report: what it reads, and that its page is whole."""

import json
import math
from html.parser import HTMLParser

import pytest
from PIL import Image
from test_commands import refused

from janus_jax import report as command
from janus_jax.results import report


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.open, self.seen = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))


def workdir(tmp_path, lines):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_read(tmp_path):
    lines = [{"stage": "rl", "step": n, "kl": n / 10, "loss": None if n == 2 else 1.0} for n in (1, 2, 3)]
    # killed after step 3, resumed from 2, and killed within a line
    lines.append({"stage": "rl", "step": 3, "kl": 0.7})
    folder = workdir(tmp_path, lines)
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"stage": "rl", "st')
    found = report.read(folder)
    assert found["kl"] == [(1, 0.1), (2, 0.2), (3, 0.7)]
    assert [step for step, _ in found["loss"]] == [1, 2, 3] and math.isnan(found["loss"][1][1])


def test_lines_that_a_kill_cut_short(tmp_path):
    """Also where the next one was written right behind."""
    torn = '{"stage": "rl", "step": 3, "clip_fr'
    lines = ['{"step": 1, "loss": 2}', torn + '{"step": 3, "loss": 5}', "[]", '{"step": 4, "loss": 1}', torn]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert report.read(tmp_path) == {"loss": [(1, 2), (4, 1)]}
    report.write(tmp_path)


def test_page(tmp_path):
    lines = [{"stage": "rl", "step": n, "right_first": 0.5, "right_final": n / 40, "kl": 0.0} for n in range(1, 41)]
    folder = workdir(tmp_path, lines)
    (folder / "settings.json").write_text(json.dumps({"init": "<i>shapes-sft"}))
    for step in (20, 40):
        Image.new("RGB", (4, 4)).save(folder / f"storyboard_{step:05d}.png")
    command.main(["--workdir", str(folder)])
    page = (folder / "report.html").read_text()
    tags = Tags(page)
    assert tags.open == []
    assert [a["src"] for tag, a in tags.seen if tag == "img"] == ["storyboard_00040.png", "storyboard_00020.png"]
    assert page.index("storyboard_00040") < page.index("<svg") and f'<h1 dir="auto">{folder.name}</h1>' in page
    assert "&lt;i&gt;shapes-sft" in page and "<i>" not in page
    assert page.index("<h2>Pictures") < page.index("<h2>Loss and policy") < page.index("<h2>First and last tenth")
    assert sum(tag == "figure" for tag, _ in tags.seen) == 2  # what belongs together, and the rest
    # two curves, faint and smooth; a constant is a curve, too; and each curve's sample in the legend
    assert sum(tag == "polyline" for tag, _ in tags.seen) == 6 + 3
    assert "right_final 0.9875</b> The same of the pictures that the model chose" in page  # the last twentieth's mean
    assert not any(tag == "script" or "http" in str(attributes) for tag, attributes in tags.seen)
    assert not list(folder.glob(".report*"))


def test_without_a_value(tmp_path):
    """What never has one is named once, and has no curve."""
    lines = [{"stage": "rl", "step": n, "loss": 1.0, "value_loss": None, "a<b": n} for n in range(1, 4)]
    page = report.write(workdir(tmp_path, lines)).read_text()
    assert page.count("value_loss") == 1 and "Without a value in every step: value_loss." in page
    assert "a&lt;b" in page and "a<b" not in page and page.index("<h2>Others") > page.index("<h2>Loss")


@pytest.mark.parametrize("content", [None, "no json}\n"])
def test_no_metrics(tmp_path, content):
    if content:
        (tmp_path / "metrics.jsonl").write_text(content)
    assert "--workdir" in refused(command.main, "--workdir", tmp_path)
    assert not (tmp_path / "report.html").exists()

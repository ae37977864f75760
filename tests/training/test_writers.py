"""Writers: which there are, what they are told, what happens where one fails; Weights & Biases without a network."""

import json
import math
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from test_loop import STEPS, Stop, lines, train

from janus_jax.errors import UserError
from janus_jax.rules import check_settings
from janus_jax.training import writers
from janus_jax.training.metrics import Metrics
from janus_jax.training.settings import SHARED

ROOT = Path(__file__).parents[2]

STUB = '''
import json

class Stub:
    """A writer as a user would write one."""

    def __init__(self, start):
        self.file = open(start.workdir / "said.jsonl", "a")
        self.say("start", start.stage, start.done, start.seen, start.settings.get("steps"))

    def say(self, *words):
        self.file.write(json.dumps(words) + "\\n")
        self.file.flush()

    def write(self, step, values):
        self.say("write", step, sorted(values))

    def picture(self, step, name, pixels):
        self.say("picture", step, name, pixels.shape)

    def close(self):
        self.say("close")
        self.file.close()


class Broken(Stub):
    def write(self, step, values):
        raise ConnectionError("no\\nnetwork")


def unable(start):
    raise ValueError("cannot")
'''


@pytest.fixture
def stub(tmp_path, monkeypatch):
    (tmp_path / "stub_writer.py").write_text(STUB)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "stub_writer", raising=False)
    workdir = tmp_path / "w"
    workdir.mkdir()
    return workdir


def said(workdir):
    return [json.loads(line) for line in (workdir / "said.jsonl").read_text().splitlines()]


def test_a_writer_of_ones_own(stub):
    with Metrics(stub, "rl", writers=("stub_writer:Stub",), settings={"steps": 7}) as metrics:
        metrics.write(1, {"loss": 0.5, "gap": math.nan})
        metrics.image(1, "storyboard", np.zeros((4, 6, 3), np.uint8))
        metrics.write(2, {"loss": 0.25})
    assert said(stub) == [
        ["start", "rl", 0, 0, 7],
        ["write", 1, ["gap", "loss"]],
        ["picture", 1, "storyboard", [4, 6, 3]],
        ["write", 2, ["loss"]],
        ["close"],
    ]
    assert not (stub / "tensorboard").exists()
    (stub / "said.jsonl").unlink()
    with Metrics(stub, "rl", done=1, writers=("stub_writer:Stub",)):
        assert said(stub) == [["start", "rl", 1, 2, None]]  # step 2 was written, and will be again


def test_one_that_fails_is_left_out(stub, capsys):
    with Metrics(stub, "rl", writers=("stub_writer:Broken", "tensorboard")) as metrics:
        for step in (1, 2):
            metrics.write(step, {"loss": step})
    assert capsys.readouterr().err == (
        "the writer stub_writer:Broken failed (ConnectionError: no network): the training goes on without it\n"
    )
    assert [line["loss"] for line in lines(stub)] == [1, 2]
    assert list((stub / "tensorboard").iterdir())


def test_one_that_cannot_start(stub):
    with pytest.raises(UserError, match=r"stub_writer:unable cannot start \(ValueError: cannot\): leave it out of"):
        Metrics(stub, "rl", writers=("stub_writer:unable",))


def test_unknown_and_missing(stub, monkeypatch):
    with pytest.raises(UserError, match="config.writers holds 'tensorbord': set --config.writers to a list of tensorb"):
        writers.found("tensorbord")
    with pytest.raises(UserError, match="stub_writer has no Stubb"):
        writers.found("stub_writer:Stubb")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="wandb, which is not installed: in the checkout, pip install"):
        writers.found("wandb")


class FakeWandb(types.ModuleType):
    """What the writer uses of wandb, and what it was told."""

    Settings, Image = dict, staticmethod(np.shape)

    def __init__(self):
        super().__init__("wandb")
        self.starts, self.logged, self.axes, self.ended = [], [], [], 0

    def init(self, **settings):
        self.starts.append(settings)
        return self

    def define_metric(self, names, step_metric):
        self.axes.append((names, step_metric))

    def log(self, values):
        self.logged.append(values)

    def finish(self):
        self.ended += 1


def test_wandb_goes_on_with_the_same_run(stub, monkeypatch):
    """Killed after step 3, resumed from 2: step 3 is taken again, and the run has it once."""
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    for done, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        with Metrics(stub, "rl", done=done, writers=("wandb",), settings={"steps": 7}) as metrics:
            for step in steps:
                metrics.write(step, {"loss": step / 10})
            metrics.image(steps[-1], "storyboard", np.zeros((4, 6, 3), np.uint8))
    first, second = fake.starts
    assert first == second and len(first["id"]) == 8 and first["resume"] == "allow"
    assert first["name"] == "w" and first["project"] == "mine" and first["config"] == {"steps": 7}
    assert fake.axes == 2 * [("rl/*", "rl/step")] and fake.ended == 2
    assert [(values["rl/step"], values["rl/loss"]) for values in fake.logged if "rl/loss" in values] == [
        (1, 0.1),
        (2, 0.2),
        (3, 0.3),
        (4, 0.4),
    ]
    pictures = [values for values in fake.logged if "rl/storyboard" in values]
    assert pictures == [{"rl/storyboard": (4, 6, 3), "rl/step": step} for step in (3, 4)]


def test_wandb_that_cannot_start(stub, monkeypatch):
    fake = FakeWandb()
    fake.init = lambda **settings: exec("raise RuntimeError('No API key\\nconfigured')")
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with pytest.raises(
        UserError, match=r"wandb cannot start \(No API key configured\): run `wandb login`, set WANDB_M"
    ):
        Metrics(stub, "rl", writers=("wandb",))


OFFLINE = """
from pathlib import Path
from janus_jax.training.metrics import Metrics
for done in (0, 1):
    with Metrics(Path("."), "rl", done=done, writers=("wandb",)) as metrics:
        metrics.write(done + 1, {"loss": 0.5})
"""


def test_wandb_without_a_network(tmp_path):
    """The real library writes both starts as one run."""
    pytest.importorskip("wandb", reason="pip install -e '.[wandb]'")
    mine = {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "WANDB_API_KEY": "", "WANDB_MODE": "offline"}
    said = subprocess.run(
        [sys.executable, "-c", OFFLINE],
        env={**os.environ, **mine},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert said.returncode == 0, said.stderr
    run = (tmp_path / "wandb_id").read_text()
    assert list((tmp_path / "wandb").glob(f"offline-run-*-{run}/run-{run}.wandb"))
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]


def test_the_loop_and_settings(stub):
    rule = {"writers": SHARED["writers"]}
    check_settings(ConfigDict({"writers": ["tensorboard"]}), rule)
    with pytest.raises(UserError, match="set --config.writers to a list, each a text"):
        check_settings(ConfigDict({"writers": "wandb"}), rule)
    train(stub, Stop(), writers=("stub_writer:Stub",))
    assert said(stub)[0] == ["start", "toy", 0, 0, STEPS]
    assert [each[1] for each in said(stub) if each[0] == "write"] == list(range(1, STEPS + 1))

"""Ablations: their command lines, what is done again and what is not, and the table."""

import json
import os
import signal
import sys
import threading
import time

import pytest
from commands import refused
from evaluations import evaluation
from ml_collections import ConfigDict

from janus_jax import ablate
from janus_jax.errors import UserError

RL = ("train_rl", "configs/shapes_rl.py")


def config(**rows):
    """Rows by name; ConfigDict would sort a dict of them."""
    settings = {"prompts_per_category": 30, "samples": 2, "rounds": 3, "batch": 100, "seed": 0}
    return ConfigDict({"rows": tuple({"name": name, **row} for name, row in rows.items()), "evaluate": settings})


def test_command_lines(tmp_path):
    rows = ablate.rows_of(
        config(
            sft={"train": ("train_sft", "a.py")},
            rl={"train": RL, "set": {"init": "@sft", "steps": 9}, "seeds": 2},
            more={"train": RL, "set": {"init": "@rl"}, "seeds": 3},
            best={"set": {"init": "@sft"}, "best_of": 3},
        )
    )
    line = ablate.training(tmp_path, rows, "rl", 1)
    assert line[1:5] == ["-m", "janus_jax.train_rl", "--config", "configs/shapes_rl.py"]
    workdir, seed, init, steps = (
        f"{tmp_path}/rl-1",
        "--config.seed=1",
        f"--config.init={tmp_path}/sft-0",
        "--config.steps=9",
    )
    assert line[5:] == ["--workdir", workdir, seed, init, steps]
    line, out = ablate.evaluation(tmp_path, rows, "rl", 1, config().evaluate)
    assert out == tmp_path / "rl-1.json" and line[line.index("--checkpoint") + 1] == f"{tmp_path}/rl-1"
    assert line[line.index("--rounds") + 1] == "3" and line[line.index("--samples") + 1] == "2"
    # as many single pictures
    line, _ = ablate.evaluation(tmp_path, rows, "best", 0, config().evaluate)
    assert line[line.index("--again") :][:6] == ["--again", "best", "--rounds", "3", "--samples", "2"]
    assert line[line.index("--checkpoint") + 1] == f"{tmp_path}/sft-0"
    # a run starts from that of its own seed, where there is one
    assert [ablate.needed(rows, "more", seed) for seed in range(3)] == [[("rl", 0)], [("rl", 1)], [("rl", 0)]]
    assert f"--config.init={tmp_path}/rl-1" in ablate.training(tmp_path, rows, "more", 1)


@pytest.mark.parametrize(
    "row, words",
    [
        ({"magic": 1, "train": RL}, "magic"),
        ({"train": ("train_vq", "a.py")}, "train_sft or train_rl"),
        ({"train": RL, "seeds": 0}, "seeds"),
        ({"train": RL, "set": {"init": "@later"}}, "@later"),
        ({"train": RL, "set": {"init": "@it"}}, "@it"),
        ({}, "trains nothing"),
    ],
)
def test_rows_that_are_none(row, words):
    with pytest.raises(UserError, match=words):
        ablate.rows_of(config(it=row, later={"train": RL}))
    with pytest.raises(UserError, match="a name of its own"):
        ablate.rows_of(ConfigDict({"rows": ({"train": RL}, {"train": RL})}))


def test_table(tmp_path):
    rows = ablate.rows_of(
        config(sft={"train": RL}, rl={"train": RL, "seeds": 2}, later={"train": RL}, other={"train": RL})
    )
    evaluation(tmp_path / "sft-0.json", {("a", 0): [False, True], ("b", 0): [False, False]})
    evaluation(tmp_path / "rl-0.json", {("a", 0): [True], ("b", 0): [False, True]})
    evaluation(tmp_path / "rl-1.json", {("a", 0): [True], ("b", 0): [False, False]})
    lines = ablate.table(tmp_path, rows).splitlines()
    assert lines[2].startswith("| sft | 1 | 0.000 ± 0.000 | 0.500 ± 0.500 |")
    assert lines[3].startswith("| rl | 2 | 0.500 ± 0.000 | 0.750 ± 0.250 |")
    assert not any("later" in line for line in lines)
    # against the sft run, paired: +.5 and 0 over the runs; of one run, over its prompts
    evaluation(tmp_path / "other-0.json", {("a", 0): [True], ("b", 0): [True]})
    lines = ablate.table(tmp_path, rows, "sft").splitlines()
    assert lines[0].split(" | ")[4] == "less the sft's"
    assert [line.split(" | ")[4 - 1] for line in lines[2:5]] == ["0.500 ± 0.500", "0.750 ± 0.250", "1.000 ± 0.000"]
    assert [line.split(" | ")[4] for line in lines[2:5]] == ["", "+0.250 ± 0.250", "+0.500 ± 0.500"]


STUB = """
import pathlib, sys
kind, place = sys.argv[1:3]
place = pathlib.Path(place)
if kind == "train":
    (place / "model").mkdir(parents=True)
    (place / "model" / "manifest.json").write_text("{}")
elif place.name == "bad-0.json":
    sys.exit("error: no such thing")
else:
    scratch = place.with_suffix(".tmp")  # as evaluate does: the other job's table may look at it
    scratch.write_text('{"overall": {"first": 0.5, "final": 0.6}, "stderr": {"first": 0.1, "final": 0.1, "gain": 0.1, '
                     '"repair_rate": null, "spoil_rate": null, "judge_agreement_balanced": null, "rounds_used": 0.1}, '
                     '"gain": 0.1, "repair_rate": null, "spoil_rate": null, "judge_agreement_balanced": null, '
                     '"rounds_used": 1.5}')
    scratch.rename(place)
"""


@pytest.fixture
def stubbed(monkeypatch, tmp_path):
    """Commands that do at once what real ones take minutes for; the list of those that ran."""
    ran = []
    (tmp_path / "stub.py").write_text(STUB)

    def line(kind, path):
        ran.append(f"{kind} {path.name}")
        return [sys.executable, str(tmp_path / "stub.py"), kind, str(path)]

    def training(workdir, rows, name, seed):
        return line("train", ablate.place(workdir, name, seed))

    def evaluated(workdir, rows, name, seed, settings):
        out = workdir / f"{name}-{seed}.json"
        return line("evaluate", out), out

    monkeypatch.setattr(ablate, "training", training)
    monkeypatch.setattr(ablate, "evaluation", evaluated)
    return ran


FILE = """
from ml_collections import ConfigDict
def get_config():
    row = {{"train": ("train_rl", __file__)}}
    rows = {rows}
    return ConfigDict({{"rows": rows, "seed": 0, "jobs": {jobs}, "baseline": "", "evaluate": {{"samples": 2}}}})
"""


def test_goes_on_where_it_was(tmp_path, stubbed, capsys):
    file = tmp_path / "config.py"
    file.write_text(
        FILE.format(jobs=1, rows='({"name": "sft", **row, "evaluate": False}, {"name": "rl", **row, "seeds": 2})')
    )
    ablate.main(["--config", str(file), "--workdir", str(tmp_path / "w")])
    assert "rl, seed 1: evaluating" in capsys.readouterr().out
    assert "| rl | 2 | 0.500 ± 0.000 | 0.600 ± 0.000 |" in (tmp_path / "w" / "table.md").read_text()
    (tmp_path / "w" / "rl-1.json").unlink()
    stubbed.clear()
    capsys.readouterr()
    ablate.main(["--config", str(file), "--workdir", str(tmp_path / "w")])
    assert capsys.readouterr().out.splitlines()[0] == "rl, seed 1: evaluating"


def test_side_by_side(tmp_path, stubbed):
    """Two at once, but none before the one it starts from."""
    file = tmp_path / "config.py"
    rows = '({"name": "sft", **row, "seeds": 2}, {"name": "rl", **row, "set": {"init": "@sft"}, "seeds": 2})'
    file.write_text(FILE.format(jobs=2, rows=rows))
    ablate.main(["--config", str(file), "--workdir", str(tmp_path / "w")])
    for seed in range(2):
        steps = (f"train sft-{seed}", f"evaluate sft-{seed}.json", f"train rl-{seed}", f"evaluate rl-{seed}.json")
        order = [stubbed.index(step) for step in steps]
        assert order == sorted(order)
    file.write_text(
        FILE.format(jobs=2, rows='({"name": "bad", **row}, {"name": "rl", **row, "set": {"init": "@bad"}})')
    )
    assert "no such thing" in refused(ablate.main, "--config", file, "--workdir", tmp_path / "v")
    assert not (tmp_path / "v" / "rl-0").exists()


def test_cores_are_shared(tmp_path):
    handlers = {name: signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        run = ablate.Runner(2)
        mine = os.sched_getaffinity(0)
        code = "import os; print(sorted(os.sched_getaffinity(0)))"
        assert run([sys.executable, "-c", code], tmp_path / "a") and run([sys.executable, "-c", code], tmp_path / "b")
    finally:
        for name, handler in handlers.items():
            signal.signal(name, handler)
    assert os.sched_getaffinity(0) == mine
    shares = [set(json.loads((tmp_path / name).read_text())) for name in "ab"]
    assert len(mine) < 2 or (shares[0] | shares[1] == mine and not shares[0] & shares[1])


def test_what_has_not_begun_leaves_no_trace(tmp_path, stubbed, monkeypatch):
    """After a signal another configuration may take the place of the runs that were still to come."""
    file = tmp_path / "config.py"
    file.write_text(FILE.format(jobs=1, rows='({"name": "rl", **row, "seeds": 3},)'))

    def stopping(run, line, log):
        run._stop = True
        return False

    monkeypatch.setattr(ablate.Runner, "__call__", stopping)
    with pytest.raises(SystemExit, match="143"):
        ablate.main(["--config", str(file), "--workdir", str(tmp_path / "w")])
    assert sorted(path.name for path in (tmp_path / "w").iterdir()) == ["rl-0.training"]


def test_a_changed_configuration_is_refused(tmp_path, stubbed):
    file = tmp_path / "config.py"
    file.write_text(FILE.format(jobs=1, rows='({"name": "rl", **row},)'))
    ablate.main(["--config", str(file), "--workdir", str(tmp_path / "w")])
    (tmp_path / "w" / "rl-0.training").write_text("another command")
    assert "another --workdir" in refused(ablate.main, "--config", file, "--workdir", tmp_path / "w")


def test_a_run_that_fails(tmp_path, stubbed):
    file = tmp_path / "config.py"
    file.write_text(FILE.format(jobs=1, rows='({"name": "bad", **row},)'))
    line = refused(ablate.main, "--config", file, "--workdir", tmp_path / "w")
    assert "no such thing" in line and "bad-0.log" in line
    assert not (tmp_path / "w" / "table.md").exists()


def test_a_signal_reaches_the_command_that_runs(tmp_path):
    handlers = {name: signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        run = ablate.Runner()
        code = (
            "import signal, time; signal.signal(signal.SIGTERM, lambda *_: exit(0)); open(r'{}', 'w'); time.sleep(60)"
        )
        ready = tmp_path / "ready"

        def interrupt():
            while not ready.exists():
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt, daemon=True).start()
        assert not run([sys.executable, "-c", code.format(ready)], tmp_path / "log")
        assert not run([sys.executable, "-c", "open('never', 'w')"], tmp_path / "log")
    finally:
        for name, handler in handlers.items():
            signal.signal(name, handler)


def test_results_are_json(tmp_path):
    path = evaluation(tmp_path / "x.json", {("a", 0): [True]})
    assert set(ablate.figures(path, ablate.ROW)) >= {"first", "final", "gain"}
    assert json.loads(path.read_text())["overall"]["first"] == 1
    assert ablate.figures(tmp_path / "absent.json", ablate.ROW) is None

"""The recipe on a micro world: stage 1, stage 2, generate; and a training that is killed goes on as if it had not
been."""

import json
import shutil
import signal
import subprocess
import sys
import time

import faulty_judge
import jax
import numpy as np
import pytest
from commands import command, environment, metrics, rl_flags, sft_flags

from janus_jax.checkpoints import loading, model_folder
from janus_jax.results import glossary


def test_recipe(world, tmp_path):
    sft = tmp_path / "sft"
    command(tmp_path, "train_sft", *sft_flags(world, sft))
    losses = [line["loss"] for line in metrics(sft)]
    assert np.mean(losses[-3:]) < 0.6 * losses[0]
    assert {line["skipped"] for line in metrics(sft)} == {0.0}

    rl = tmp_path / "rl"
    command(tmp_path, "train_rl", *rl_flags(rl, init=sft, steps=10))
    lines = metrics(rl)
    assert max(line["max_logp_gap"] for line in lines) < 1e-3  # the density trained is the density sampled
    # nothing this model draws is right, so what there is to learn is to say so
    assert np.mean([line["agreement"] for line in lines[-3:]]) > np.mean([line["agreement"] for line in lines[:3]])
    assert (rl / "storyboard_00010.png").is_file() and (rl / "report.html").is_file()
    assert [line["step"] for line in lines if "retention" in line] == [5, 10]
    unknown = {name for line in lines + metrics(sft) for name in line if glossary.entry(name) is None}
    assert unknown == {"stage", "step"}, "results/glossary.py has no entry for these"

    before, after = (loading.load(folder)[1] for folder in (sft, rl))
    same = jax.tree.map(lambda a, b: bool((a == b).all()), before, after)
    assert all(jax.tree.leaves(same["vq"]))  # frozen
    assert not all(jax.tree.leaves(same["llama"]))

    out = tmp_path / "out"
    flags = ("--samples", 2, "--rounds", 2, "--max-reason-tokens", 6, "--out", out)
    command(tmp_path, "generate", "--checkpoint", rl, "--prompt", "a red circle", *flags)
    records = [json.loads(line) for line in (out / "trajectories.jsonl").read_text().splitlines()]
    assert [record["sample"] for record in records] == [0, 1]
    for record in records:
        assert set(record) == {"prompt", "sample", "seed", "rounds", "final"}
        assert all((out / shot["image"]).is_file() for shot in record["rounds"])
    assert (out / "storyboard.png").is_file() and (out / "index.html").is_file()


EDITS = {
    **{"task": "both", "prompt_tokens": 40},
    "reward.weights": {"match": 1.0, "following": 0.5, "preserving": 1.0},
}


@pytest.mark.slow
def test_recipe_of_edits(world, tmp_path):
    """Their cache, stage 1 with questions, stage 2 of both tasks, the model as judge of another one, evaluations."""
    cache = tmp_path / "edits.npz"
    command(tmp_path, "cache_codes", "--task", "edit", "--edits", 32, "--tokenizer", world[0], "--out", cache)
    sft = tmp_path / "sft"
    buckets = "((120,(('draw',0,8),('judge',0,8),('answer',0,8))),(180,(('edit',0,8),('judge_edit',0,8))))"
    flags = [f"--config.edits={cache}", f"--config.buckets={buckets}", "--config.shares=(10,10,0,10,20)"]
    command(tmp_path, "train_sft", *sft_flags(world, sft), *flags)
    losses = metrics(sft)
    for name in ("loss", "edit", "verdict", "describe"):
        assert losses[-1][name] < 0.8 * losses[0][name]

    rl, judged = tmp_path / "rl", tmp_path / "judged"
    command(tmp_path, "train_rl", *rl_flags(rl, init=sft, steps=4, retention_questions=1, retention_every=2, **EDITS))
    lines = metrics(rl)
    assert max(line["max_logp_gap"] for line in lines) < 1e-3
    names = ("score_match", "score_following", "score_preserving", "edit_right_first", "draw_right_first")
    assert all(line[name] is not None for line in lines for name in names)
    assert [line["step"] for line in lines if "retention_questions" in line] == [2, 4]
    reward = {"reward.kind": "model", "reward.checkpoint": rl, "reward.weights": {}}
    command(tmp_path, "train_rl", *rl_flags(judged, init=sft, steps=2, **{**EDITS, **reward}))
    assert all(line["failed"] == 0 and 0 < line["score_whole"] < 1 for line in metrics(judged))

    flags = ("--checkpoint", rl, "--prompts-per-category", 2, "--max-reason-tokens", 6)
    out = tmp_path / "edits.json"
    command(tmp_path, "evaluate", *flags, "--suite", "shapes_edit", "--samples", 1, "--rounds", 2, "--out", out)
    assert set(json.loads(out.read_text())["edits"]) == {"recolor", "add", "remove", "move", "swap"}


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    """A model after ten steps of stage 1."""
    folder = tmp_path_factory.mktemp("trained")
    command(folder, "train_sft", *sft_flags(world, folder / "sft"), "--config.steps=10")
    return folder / "sft"


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"credit": "released/regen_prompt", "updates": 2},
        {"credit": "released/always_second"},
        {"credit": "released/own_prompt", "released": True},
        {"credit": "trajectory", "rounds": 3, "estimator": "rloo", "redraws": 2},
        {"credit": "improvement", "rounds": 3, "estimator": "dr_grpo"},
        {"credit": "trajectory", "rounds": 3, "estimator": "ppo", "updates": 2},
        {"credit": "trajectory", "reward.kind": "model"},
        {"credit": "trajectory", "mesh": "(2,2,2)", "micro_batches": 2},
        {"credit": "released/regen_prompt", "ahead": True, "refresh_every": 1},
        {"credit": "improvement", "rounds": 3, **EDITS, "mesh": "(2,2,2)"},
        {"credit": "pictures", "rounds": 1, **EDITS, "task": "edit"},
        {"credit": "trajectory", "image_top_k": 6, "text_top_k": 5, "updates": 2, "learning_rate": 1e-3},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())).replace("/", "_")[:60],
)
def test_choices_of_stage_2(settings, trained, tmp_path):
    """Every credit, estimator, judge and a mesh: a rollout, and steps on the very density that was sampled."""
    flags = rl_flags(tmp_path / "rl", init=trained, **{"steps": 2, "warmup": 0, **settings})
    command(tmp_path, "train_rl", *flags, devices=8 if "mesh" in settings else 1)
    lines = metrics(tmp_path / "rl")
    assert [line["step"] for line in lines] == [1, 2]
    for line in lines:
        assert line["loss"] is not None and line["skipped"] == 0 and line["failed"] == 0
        assert line["max_logp_gap"] is None if settings.get("released") else line["max_logp_gap"] < 1e-3
        assert line["lost"] < 1e-3 and line["kl"] is not None
    assert any(line["update_norm"] > 0 for line in lines)
    loading.load(tmp_path / "rl")


@pytest.mark.slow
def test_a_density_that_is_not_the_one_sampled(trained, tmp_path):
    """The limit ends the run in one line, with what it had learnt saved."""
    flags = rl_flags(tmp_path / "rl", init=trained, steps=2, max_logp_gap=-1.0)
    line = [sys.executable, "-m", "janus_jax.train_rl", *flags]
    run = subprocess.run(line, env=environment(tmp_path), capture_output=True, text=True, timeout=600)
    assert run.returncode == 2 and "the density trained is not the one sampled" in run.stderr
    assert (tmp_path / "rl" / "checkpoints" / "1").is_dir() and not (tmp_path / "rl" / "model").exists()


RL_TO_RESUME = {"steps": 8, "save_every": 2, "updates": 2}
STAGES = {
    "sft": {},
    "rl": RL_TO_RESUME,
    # all that a checkpoint may hold: a rollout in flight, a reference of its own, a value head
    "rl-ahead": {**RL_TO_RESUME, "ahead": True, "refresh_every": 3, "credit": "trajectory", "estimator": "ppo"},
    "rl-edits": {**RL_TO_RESUME, **EDITS, "ahead": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_killed_and_resumed(stage, world, trained, tmp_path):
    def start(workdir):
        kind = stage.split("-")[0]
        flags = sft_flags(world, workdir) if kind == "sft" else rl_flags(workdir, init=trained, **STAGES[stage])
        line = [sys.executable, "-m", f"janus_jax.train_{kind}", *flags]
        with open(tmp_path / "stderr.txt", "ab") as errors:
            return subprocess.Popen(line, env=environment(tmp_path), stderr=errors)

    def when(condition, process):
        deadline = time.time() + 300
        while not condition():
            assert process.poll() is None, (tmp_path / "stderr.txt").read_text()[-2000:]
            assert time.time() < deadline
            time.sleep(0.01)

    def ends_well(process):
        assert process.wait(300) == 0, (tmp_path / "stderr.txt").read_text()[-2000:]

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    ends_well(start(whole))

    def saved():
        return len(list(cut.glob("checkpoints/*/commit_success.txt")))

    process = start(cut)
    when(lambda: saved() >= 1, process)
    process.kill()
    process.wait()
    assert not (cut / "model").exists()

    process = start(cut)
    lines = len(metrics(cut))
    when(lambda: len(metrics(cut)) > lines, process)
    process.send_signal(signal.SIGTERM)  # saves and leaves
    ends_well(process)
    assert not (cut / "model").exists()

    ends_well(start(cut))
    final = {line["step"]: line["loss"] for line in metrics(cut)}
    assert final == {line["step"]: line["loss"] for line in metrics(whole)}  # to the bit
    assert (cut / "model" / model_folder.PARAMS).read_bytes() == (whole / "model" / model_folder.PARAMS).read_bytes()


@pytest.mark.slow
def test_resumed_on_another_mesh(trained, tmp_path):
    """Four steps, then four on eight devices, like eight on one: a rollout in flight and the reference move, too."""
    settings = {"steps": 8, "save_every": 4, "updates": 2, "ahead": True, "refresh_every": 3}
    settings |= {"learning_rate": 1e-3, "init": trained}
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    command(tmp_path, "train_rl", *rl_flags(whole, **settings))
    shutil.copytree(whole, moved)
    shutil.rmtree(moved / "checkpoints" / "8")
    shutil.rmtree(moved / "model")
    (moved / "metrics.jsonl").unlink()
    command(tmp_path, "train_rl", *rl_flags(moved, **settings, mesh="(2,2,2)"), devices=8)
    expected = {line["step"]: line for line in metrics(whole)}
    there = metrics(moved)
    assert [line["step"] for line in there] == [5, 6, 7, 8]
    for line in there:
        for name in ("loss", "kl", "grad_norm", "reward_first"):
            np.testing.assert_allclose(line[name], expected[line["step"]][name], rtol=2e-3, atol=2e-5)


@pytest.mark.slow
def test_a_judge_that_fails(trained, tmp_path):
    """A third of the answers fail in every way there is, and then all of them for a while: training learns from what is
    known, waits where too little is, and comes to its end."""
    settings = {"init": trained, "steps": 6, "warmup": 0, "most_missing": 0.6, "pause_seconds": 0.5, "ahead": True}
    reward = {"kind": "chat", "model": "verifier", "retries": 0, "timeout_s": 1.0}
    with faulty_judge.Judge(faults=0.33, outage_at=60, outage_s=4.0) as judge:
        flags = [f"--config.reward.{key}={value}" for key, value in {**reward, "url": judge.url}.items()]
        line = [sys.executable, "-m", "janus_jax.train_rl", *rl_flags(tmp_path / "rl", **settings), *flags]
        run = subprocess.run(line, env=environment(tmp_path), capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    assert all(judge.counts.values()), judge.counts
    assert "rewards are missing" in run.stderr and "asks again in 0.5 s" in run.stderr
    lines = metrics(tmp_path / "rl")
    assert [line["step"] for line in lines] == list(range(1, 7))
    failed = [line["failed"] for line in lines]
    assert 0.1 < np.mean(failed) <= max(failed) <= 0.6
    assert all(line["loss"] is not None and not line["skipped"] for line in lines)

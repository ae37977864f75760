"""Bad input to the commands: one clear line that names the mend, exit status 2, nothing half-written."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import CONFIGS, refused

from janus_jax import cache_codes, cli, evaluate, generate, train_rl, train_sft, train_vq
from janus_jax.data import cache
from janus_jax.errors import UserError

SFT, RL, VQ = (str(CONFIGS / name) for name in ("shapes_sft.py", "shapes_rl.py", "shapes_vq.py"))


@pytest.mark.parametrize("main", [train_vq.main, train_sft.main, train_rl.main])
def test_config_flags(main, tmp_path):
    config = {train_vq.main: VQ, train_sft.main: SFT, train_rl.main: RL}[main]
    assert "config.nonsense" in refused(main, "--config", config, "--workdir", tmp_path, "--config.nonsense=1")
    assert "seed" in refused(main, "--config", config, "--workdir", tmp_path, "--config.seed=many")
    assert "--workdir" in refused(main, "--config", config)
    refused(main, "--config", tmp_path / "absent.py", "--workdir", tmp_path)
    refused(main, "--config", config, "--workdir", tmp_path, "stray")
    assert not list(tmp_path.iterdir())


def test_missing_and_foreign_checkpoints(tmp_path):
    out = tmp_path / "out"
    absent = ("--checkpoint", tmp_path / "absent", "--out", out)
    assert "shapes-rl" in refused(generate.main, *absent, "--prompt", "a circle")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text('{"model_type": "llama"}')
    assert "not a janus_jax model" in refused(
        generate.main, "--checkpoint", foreign, "--out", out, "--prompt", "a circle"
    )
    (foreign / "config.json").write_text("{")
    assert "JSON" in refused(generate.main, "--checkpoint", foreign, "--out", out, "--prompt", "a circle")
    (tmp_path / "training" / "checkpoints").mkdir(parents=True)
    assert "has not finished" in refused(
        generate.main, "--checkpoint", tmp_path / "training", "--out", out, "--prompt", "a circle"
    )
    assert not out.exists()


def test_another_size(tmp_path):
    micro = Path(__file__).parent / "configs" / "micro_sft.py"
    flags = ("--config", micro, "--workdir", tmp_path / "w", "--config.init=shapes-sft", "--config.preset=1b")
    labelled = tmp_path / "cache.npz"
    assert "not a cache" in refused(train_sft.main, *flags, f"--config.cache={labelled}")
    one = cache.Groups(
        prompts=np.array(["a circle"]),
        start=np.array([0, 2]),
        codes=np.zeros((2, 36), np.int32),
        pixels=np.zeros((2, 48, 48, 3), np.uint8),
        score=np.array([1, 0], np.float32),
        reasons=np.array(["Yes, there is a circle.", "No, the picture is empty."]),
        captions=np.array(["circle.", "nothing."]),
    )
    cache.save(labelled, one)
    assert "vocab_size" in refused(train_sft.main, *flags, f"--config.cache={labelled}")
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    "prompt, words",
    [("   ", "empty"), ("a red circle and " * 800, "positions"), ("", "empty")],
    ids=["blank", "long", "none"],
)
def test_prompts(prompt, words, tmp_path):
    flags = ("--checkpoint", "shapes-rl", "--out", tmp_path / "out", "--samples", 1, "--rounds", 1)
    assert words in refused(generate.main, *flags, "--prompt", prompt)
    assert not (tmp_path / "out").exists()


def test_prompt_files(tmp_path):
    flags = ("--checkpoint", "shapes-rl", "--out", tmp_path / "out")
    refused(generate.main, *flags, "--prompts", tmp_path / "absent.txt")
    (tmp_path / "empty.txt").write_text("\n\n")
    assert "no prompt" in refused(generate.main, *flags, "--prompts", tmp_path / "empty.txt")


def test_unwritable_output(tmp_path):
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "out"
    flags = ("--checkpoint", "shapes-rl", "--out", place)
    assert "another --out" in refused(generate.main, *flags, "--prompt", "a circle", "--samples", 1, "--rounds", 1)
    assert "another --out" in refused(evaluate.main, "--checkpoint", "shapes-rl", "--out", place)
    assert "another --workdir" in refused(
        train_vq.main, "--config", VQ, "--workdir", place, "--config.steps=1", "--config.batch=8"
    )


@pytest.mark.parametrize(
    "flag, words",
    [
        ("--config.mesh=(3,1,1)", "devices"),
        ("--config.prompts_per_step=3", "divide"),
        ("--config.credit=magic", "credit"),
        ("--config.rounds=3", "about 2 rounds"),
        ("--config.group=1", "compares the members of a group"),
        ("--config.min_group=9", "min_group"),
        ("--config.estimator=magic", "grpo, rloo, dr_grpo, ppo"),
        ("--config.estimator=ppo", "--config.credit=trajectory"),
        ("--config.turn_step=1", "--config.warmup"),
        ("--config.turn_learning_rate=0.0", "--config.turn_step"),
        ("--config.reward.kind=magic", "config.reward.kind"),
        ("--config.updates=0", "updates"),
        ("--config.prompts_per_step=0", "prompts_per_step"),
        ("--config.save_every=0", "save_every"),
        ("--config.seed=-1", "seed"),
        ("--config.schedule=magic", "config.schedule"),
        ("--config.temperature=0.0", "temperature"),
        ("--config.model.remat=magic", "config.model"),
        ("--config.model.llama.layers=2", "llama.layers = 4"),
        ("--config.frozen=('nothing',)", "config.frozen"),
        ("--config.mesh=(1,1,8)", "another mesh"),
        ("--config.mesh=(-1,0,1)", "devices"),
    ],
)
def test_rl_settings(flag, words, tmp_path):
    rest = ("--config.group=2",) if "prompts_per_step=3" in flag else ()
    flags = ("--config", RL, "--workdir", tmp_path / "w", "--config.credit=released/own_prompt")
    line = refused(train_rl.main, *flags, "--config.init=shapes-sft", flag, *rest)
    assert words in line
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    "main, config, flag",
    [
        (train_sft.main, SFT, "--config.learning_rate=nan"),
        (train_sft.main, SFT, "--config.buckets=()"),
        (train_rl.main, RL, "--config.most_missing=nan"),
        (train_vq.main, VQ, "--config.weight_decay=inf"),
    ],
)
def test_settings_are_checked_before_anything_is_loaded(main, config, flag, tmp_path):
    line = refused(main, "--config", config, "--workdir", tmp_path / "w", flag)
    assert flag.split("=")[0].removeprefix("--") in line
    assert not (tmp_path / "w").exists()


WAITING = """
import ctypes, signal, time
from janus_jax import cli
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

def main(argv):
  with cli.Stop(lambda: print("given up", flush=True)) as stop:
    if argv:
        stop.at_once = None
    print("ready", flush=True)
    if argv:
        while not stop:
            time.sleep(0.01)
        print("saved", flush=True)
    else:  # as a compilation does: the main thread is in C, without the GIL, and goes on where a signal arrives
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            ctypes.CDLL(None).usleep(100_000)

cli.run(main)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("begun", [False, True])
def test_signals(number, begun):
    """Before the first step a signal ends the process in a line; after it the loop sees it."""
    line = [sys.executable, "-c", WAITING, *(["begun"] if begun else [])]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        said, errors = process.communicate(timeout=8)
    if begun:
        assert (process.returncode, said, errors) == (0, "saved\n", "")
    else:
        assert (process.returncode, said) == (128 + number, "given up\n")
        assert errors == "stopped before the first step; nothing was lost\n"


def test_signals_are_given_back():
    """To an event loop, too, which hears of them by a descriptor, as in a notebook."""
    before = [signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGINT)]
    hears, told = socket.socketpair()
    with hears, told:
        told.setblocking(False)
        assert signal.set_wakeup_fd(told.fileno()) == -1
        try:
            with cli.Stop(lambda: None) as stop:
                assert signal.getsignal(signal.SIGTERM) == stop._on_signal
        finally:
            assert signal.set_wakeup_fd(-1) == told.fileno()
    assert [signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGINT)] == before


def test_ctrl_c_is_a_line():
    code = "from janus_jax import cli\ndef main(argv): raise KeyboardInterrupt\ncli.run(main)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (130, "stopped\n")


@pytest.mark.parametrize("said, told", [("Event loop is closed", False), ("no such loop", True)])
def test_what_libraries_report_of_a_failed_save_is_no_traceback(said, told):
    """As an error that nobody can catch, beside the one that ends the command."""
    code = f"""
from janus_jax import cli

class Write:
    def __del__(self):
        raise RuntimeError({said!r})

def main(argv):
    Write()

cli.run(main)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0 and (said in run.stderr) == told


def test_a_bucket_is_no_workdir():
    assert "gcsfuse" in refused(train_rl.main, "--config", RL, "--workdir", "gs://bucket/rl")


@pytest.mark.parametrize("flags", [("--config.reward.kind=chat",), ("--config.reward.kind=model", "--config.ahead=1")])
def test_a_given_judge_stands_in_the_configured_ones_place(flags, tmp_path, monkeypatch):
    """What config.reward would lack is no reason to refuse."""

    class Begun(Exception):
        """Nothing was refused."""

    def assemble(config, *_):
        raise Begun(config)

    monkeypatch.setattr(train_rl, "assemble", assemble)
    config, workdir = cli.parse_config(["--config", RL, "--workdir", str(tmp_path), *flags], "")
    with pytest.raises(Begun) as begun:
        train_rl.train(config, workdir, judge=lambda requests, pictures: [0.5] * len(pictures))
    (given,) = begun.value.args
    # the workdir goes on only with that judge
    assert given.reward.kind == "given" and given.reward.function.endswith("<lambda>")
    with pytest.raises(UserError, match="config.reward.url|config.ahead"):
        train_rl.train(config, workdir)


def test_prompts_longer_than_said(tmp_path):
    flags = ("--config", RL, "--workdir", tmp_path / "w", "--config.init=shapes-sft", "--config.prompt_tokens=4")
    assert "--config.prompt_tokens=" in refused(train_rl.main, *flags)


def test_the_released_layout_needs_released_credit(tmp_path):
    flags = ("--config", RL, "--workdir", tmp_path / "w", "--config.credit=trajectory", "--config.released=True")
    assert "--config.credit=released/" in refused(train_rl.main, *flags)


def test_buckets_that_do_not_divide(tmp_path):
    flags = ("--config", SFT, "--workdir", tmp_path / "w", "--config.micro_batches=3")
    assert "divide" in refused(train_sft.main, *flags)


def test_a_split_of_a_suite_that_has_none(tmp_path):
    flags = ("--checkpoint", "shapes-rl", "--suite", "shapes_questions", "--out", tmp_path / "e.json")
    assert "leave --split out" in refused(evaluate.main, *flags, "--split", "validation")
    assert not list(tmp_path.iterdir())


def test_sampling_flags(tmp_path):
    flags = ("--checkpoint", "shapes-rl", "--out", tmp_path, "--prompt", "a circle")
    assert "temperature" in refused(generate.main, *flags, "--temperature", 0)
    assert "top_p" in refused(generate.main, *flags, "--image-top-p", 1.5)


@pytest.mark.parametrize("flag", ["--batch", "--samples", "--rounds"])
@pytest.mark.parametrize("main", [generate.main, evaluate.main])
def test_numbers_out_of_range(main, flag, tmp_path):
    flags = ("--checkpoint", "shapes-rl", "--out", tmp_path / "out", flag, 0)
    assert flag in refused(main, *flags, *(("--prompt", "a circle") if main is generate.main else ()))
    assert not list(tmp_path.iterdir())


def test_pictures_of_something_else_are_left_alone(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mine.png").write_bytes(b"mine")
    flags = ("--checkpoint", "shapes-rl", "--prompt", "a circle", "--samples", 1, "--rounds", 1)
    assert "another --out" in refused(generate.main, *flags, "--out", tmp_path)
    assert (tmp_path / "images" / "mine.png").read_bytes() == b"mine"


def test_too_many_held_out_prompts(tmp_path):
    flags = ("--checkpoint", "shapes-rl", "--out", tmp_path / "e.json", "--prompts-per-category", 100_000)
    assert "fewer" in refused(evaluate.main, *flags)


def test_exit_status_and_one_line(tmp_path):
    command = [
        sys.executable,
        "-m",
        "janus_jax.generate",
        "--checkpoint",
        str(tmp_path),
        "--prompt",
        "x",
        "--out",
        str(tmp_path),
    ]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1 and run.stderr.startswith("error: ")


def test_the_data_set_needs_a_place(tmp_path):
    flags = ("--tokenizer", tmp_path, "--out", tmp_path / "c.npz")
    assert "give --data-dir, --composed N, --draws N, or --task edit" in refused(cache_codes.main, *flags)
    assert "--edits is 0" in refused(cache_codes.main, *flags, "--task", "edit", "--edits", 0)
    for wrong, said in (
        (("--composed", -1), "--composed is -1: it must be at least 0"),
        (("--draws", 5, "--composed", 5), "leave --composed and --task edit away"),
        (("--draws", 5, "--task", "edit"), "leave --composed and --task edit away"),
        (("--draws", 5, "--split", "train"), "--data-dir and --split are of the data set"),
        (("--composed", 5, "--data-dir", tmp_path), "--data-dir and --split are of the data set"),
        (("--composed", 5, "--edits", 5, "--task", "edit"), "--edits counts edits that the verifier labels"),
        (("--composed", 5, "--seed", -1), "--seed is -1"),
        (("--draws", 5, "--ordered"), "--ordered is about the prompts of --composed"),
        (("--composed", 5, "--kinds", "add"), "give --task edit"),
        (("--task", "edit", "--objects", 1, "--kinds", "add", "swap"), "swap goes with 2 to 3"),
        (("--task", "edit", "--near", -1), "--near is -1"),
        (("--void", 5), "--void is a cache of its own"),
        (("--task", "edit", "--void", 5, "--objects", 2), "--void is a cache of its own"),
    ):
        assert said in refused(cache_codes.main, *flags, *wrong)

"""docs/seven-billion.md: every command of ours parses and is checked as far as a configuration can be, the launcher
says what it would do, and the sizes are those of the models."""

import argparse
import importlib
import math
import re
import subprocess
from pathlib import Path

import jax
import pytest

import janus_jax
from janus_jax import cli
from janus_jax.parallel import hosts
from janus_jax.rewards import settings as rewards
from janus_jax.training.step import trainable_leaves

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "seven-billion.md").read_text()
BLOCKS = re.findall(r"(?:^ {4}.+\n)+", PAGE, re.MULTILINE)
LINES = [line.strip() for block in BLOCKS for line in re.sub(r"\\\n\s*", " ", block).splitlines()]
OTHERS = ("gcloud", "git clone", "vllm", "pip", "python -m pip", "python -c", "hf", "export", "CREATE=(")
SLICES = ("v6e-8", "v4-8")


def exported(which):
    """The variables of the page, with the block of one of the two slices."""
    values = {}
    for line in LINES:
        if line.startswith("export ") and (" SLICE=" not in line or f" SLICE={which} " in line):
            for word in line.split()[1:]:
                name, value = word.split("=", 1)
                values[name] = re.sub(r"\$(\w+)", lambda match: values[match[1]], value)
    return values


def commands(which):
    """The page's commands as words, variables filled in by a shell, which is given the page's array as it stands."""
    lines = [line for line in LINES if not line.startswith("export ")]
    script = "".join(f"{line}\n" if line.startswith("CREATE=(") else f"printf '%s\\0' {line}; echo\n" for line in lines)
    run = subprocess.run(["bash", "-euc", script], env=exported(which), capture_output=True, text=True, check=True)
    return [words.split("\0")[:-1] for words in run.stdout.splitlines()]


def inner(words):
    """The command that a launcher's line, or env, starts."""
    if words[:2] == ["launch/tpu.sh", "run"]:
        words = words[words.index("--") + 1 :]
    return words[2:] if words[0] == "env" and "=" in words[1] else words


OURS = [(which, words) for which in SLICES for words in map(inner, commands(which)) if words[:2] == ["python", "-m"]]
OURS = [(which, words) for which, words in OURS if words[2].startswith("janus_jax.")]


class Checked(Exception):
    pass


@pytest.mark.parametrize("which, words", OURS, ids=lambda one: one if isinstance(one, str) else one[2][10:])
def test_our_commands_parse_and_pass_their_checks(which, words, monkeypatch, tmp_path):
    module, found = importlib.import_module(words[2]), {}
    parse_args, parse_config = argparse.ArgumentParser.parse_args, cli.parse_config

    def parsed(parser, argv):
        found["args"] = parse_args(parser, argv)
        raise Checked

    def configured(argv, doc, workdir=True):
        found["config"], folder = parse_config(argv, doc, workdir)
        if not workdir:  # of reward_check and compile, which would work now
            rewards.make_judge(found["config"].get("reward", rewards.DEFAULTS))
            raise Checked
        return found["config"], folder

    def start(config):
        raise Checked  # what stands before it are the checks of all settings

    monkeypatch.setenv("JUDGE_KEY", "key")
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    monkeypatch.setattr(cli, "parse_config", configured)
    monkeypatch.setattr(hosts, "start", start)
    monkeypatch.chdir(ROOT)
    words = [word.replace("/mnt/", f"{tmp_path}/") for word in words]
    with pytest.raises(Checked):
        module.main(words[3:])
    assert found
    if "config" in found:
        assert math.prod(found["config"].mesh) == {"v6e-8": 8, "v4-8": 4}[which]
    if module.__name__.startswith("janus_jax.train_"):
        assert found["config"].init.startswith(str(tmp_path)), "the page says where the model comes from"


def test_the_page_has_every_step():
    named = {words[2].removeprefix("janus_jax.") for _, words in OURS}
    steps = {"compile", "convert", "generate", "cache_labels", "reward_check", "train_sft", "train_rl", "evaluate"}
    assert named == steps | {"export_benchmark"}
    for line in LINES:
        assert line.startswith(("launch/tpu.sh ", "python -m janus_jax.", *OTHERS)), f"no test looks at: {line}"


@pytest.mark.parametrize("which", SLICES)
def test_the_launcher_says_what_it_would_do(which, tmp_path):
    (tmp_path / "gcloud").write_text("#!/bin/sh\nexit 1\n")  # a dry run asks nobody
    (tmp_path / "gcloud").chmod(0o755)
    environment = exported(which) | {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path), "LC_ALL": "C"}
    lines = [words for words in commands(which) if words[0] == "launch/tpu.sh"]
    assert len(lines) > 8
    for words in lines:
        dry = [] if "--dry-run" in words else ["--dry-run"]
        run = subprocess.run(
            ["bash", *words[:2], *dry, *words[2:]], env=environment, capture_output=True, text=True, cwd=ROOT
        )
        assert run.returncode == 0 and "gcloud" in run.stdout, run.stderr


def test_sizes():
    rows = [line for line in PAGE.splitlines() if " GB |" in line and "about" not in line]  # of the models
    table = [line.strip("| ").split(" | ")[1:] for line in rows]
    for column, size in enumerate(("7b", "1b")):
        abstract = janus_jax.abstract_params(janus_jax.Janus(janus_jax.JanusConfig.preset(size)))
        learns = jax.tree.leaves(trainable_leaves(abstract, (r"vq/.*", r"siglip/.*")))
        sizes = [leaf.size for leaf in jax.tree.leaves(abstract)]
        count, trained = sum(sizes), sum(n for n, keeps in zip(sizes, learns, strict=True) if keeps)
        expected = [2 * count, 4 * count, 4 * count + 2 * 4 * trained]  # AdamW's two moments
        assert [row[column] for row in table] == [f"{value / 1e9:.1f} GB" for value in expected]
        if size == "7b":
            assert f"three while it writes one: {3 * expected[2] / 1e9:.0f} GB" in PAGE

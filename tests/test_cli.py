"""Flags and their help, of every command; the list of commands; what a finished training says."""

import argparse
import contextlib
import importlib
import io
import os
import shlex
import subprocess
import sys

import pytest
from commands import CONFIGS, refused
from ml_collections import ConfigDict

from janus_jax import __main__ as listing
from janus_jax import cli, train_rl, train_sft
from janus_jax.errors import UserError
from janus_jax.training import sft

COMMANDS = listing.commands()
SFT = str(CONFIGS / "shapes_sft.py")


class Found(Exception):
    """Carries the parser out of a command."""


def parser_of(command, monkeypatch) -> argparse.ArgumentParser | None:
    """The parser that a command makes; None for one that has a configuration alone."""

    def found(self, *given):
        raise Found(self)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", found)
    try:
        importlib.import_module(f"janus_jax.{command}").main([])
    except Found as error:
        return error.args[0]
    except UserError:
        return None


@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_has_its_text_and_default(command, monkeypatch):
    parser = parser_of(command, monkeypatch)
    if parser is None:
        with pytest.raises(SystemExit), contextlib.redirect_stdout(io.StringIO()) as said:
            importlib.import_module(f"janus_jax.{command}").main(["--help"])
        assert "--config FILE" in said.getvalue()
        return
    either = {
        action for group in parser._mutually_exclusive_groups if group.required for action in group._group_actions
    }
    for action in parser._actions:
        if action.dest != "help":
            text = action.help and parser._get_formatter()._expand_help(action)
            assert text, f"{command} {action.dest} has no help"
            either_or = action.required or action in either or action.default == []
            assert either_or or "default: " in text, f"{command} {action.dest}: {text}"


def test_every_command_has_its_line(capsys):
    listing.main([])
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[0] for line in lines] == list(COMMANDS) and {"generate", "train_rl"} <= COMMANDS.keys()
    assert not {"cli", "errors", "rules", "configuration"} & COMMANDS.keys()
    assert all(20 < len(line) < 120 for line in lines)


def test_commands_by_name():
    """As the module would run; no other module can be."""
    run = subprocess.run(
        [sys.executable, "-m", "janus_jax", "reward-check", "--config", "absent.py"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(CONFIGS.parent)},
    )
    assert run.returncode == 2 and run.stderr.startswith("error: ") and run.stderr.count("\n") == 1
    for name in ("cli", "nonsense", "../generate", "models.janus"):
        assert "no command" in refused(listing.main, name)


def test_a_flag_given_twice():
    for flags in (["--n", "1", "--n", "2"], ["--n=1", "--n=1"]):
        parser = cli.Parser("generate", "Draws.")
        parser.add_argument("--n", type=int, default=0, help="so many")
        with pytest.raises(UserError, match="--n is given twice"):
            parser.parse_args(flags)
    parser = cli.Parser("generate", "Draws.")
    parser.add_mutually_exclusive_group().add_argument("--prompt", action="append", help="what")
    parser.add_argument("files", nargs="*", help="which")
    assert vars(parser.parse_args(["--prompt", "a", "--prompt", "b", "c", "d"])) == {
        "prompt": ["a", "b"],
        "files": ["c", "d"],
    }
    with pytest.raises(UserError, match="see python -m janus_jax.generate --help"):
        parser.parse_args(["--promt", "a"])


def test_help_with_a_configuration(capsys):
    with pytest.raises(SystemExit) as exit:
        cli.parse_config(["--help", "--config", SFT], "Trains.")
    assert exit.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith("Trains.")
    assert "  --config.verdict_share=0.8            of the judge's loss: its Yes or No" in said
    with pytest.raises(SystemExit):
        cli.parse_config(["-h"], "Trains.")
    assert "--config.verdict_share" not in capsys.readouterr().out
    with pytest.raises(UserError):
        cli.parse_config(["--help", "--config=absent.py"], "Trains.")


def test_entries_of_the_model():
    """Need not be in the configuration."""
    flags = ["--config.model.llama.layers=2", "--config.model.scan=true", "--config.model.attention=dot"]
    config, _ = cli.parse_config(["--config", SFT, *flags], "", workdir=False)
    model = sft.configured_model(config)
    assert (model.llama.layers, model.scan, model.attention) == (2, True, "dot")
    assert (
        model.llama.width == sft.configured_model(cli.parse_config(["--config", SFT], "", workdir=False)[0]).llama.width
    )
    config, _ = cli.parse_config(["--config", SFT, "--config.model.scan=2.5"], "", workdir=False)
    with pytest.raises(UserError, match="scan is '2.5': it must be true or false"):
        sft.configured_model(config)
    with pytest.raises(UserError, match="scan|bool"):  # it has one
        cli.parse_config(["--config", str(CONFIGS / "shapes_rl.py"), "--config.model.scan=2.5"], "", workdir=False)
    with pytest.raises(UserError, match="config.model"):  # it has none
        cli.parse_config(["--config", str(CONFIGS / "shapes_vq.py"), "--config.model.scan=1"], "", workdir=False)
    config, _ = cli.parse_config(["--config", SFT, "--config.model.llama.layrs=2"], "", workdir=False)
    with pytest.raises(UserError, match="layrs"):
        sft.configured_model(config)


NOISE = """
import os, sys
from janus_jax import cli, train_rl, train_sft
from janus_jax.errors import UserError

def main(argv):
    with cli.quiet():
        os.write(2, b"from C++\\n")
        print("a row", flush=True)
        if argv:
            raise {"user": UserError, "other": ValueError}[argv[0]]("no good")
    os.write(2, b"after\\n")

cli.run(main)
"""


@pytest.mark.parametrize("how", ["", "user", "other"])
def test_noise_is_shown_only_where_something_fails(how):
    run = subprocess.run([sys.executable, "-c", NOISE, *filter(None, [how])], capture_output=True, text=True)
    assert run.stdout == "a row\n"
    expected = {"": "after\n", "user": "error: no good\n"}
    if how in expected:
        assert run.stderr == expected[how]
    else:
        assert run.stderr.startswith("from C++\nTraceback") and run.stderr.endswith("ValueError: no good\n")


def test_a_bar_says_how_far_the_next_is(capsys):
    with cli.Bar(3, 1, "drawing") as bar:
        assert "1/3" in capsys.readouterr().err
        bar.codes(8, 16)
        assert "8 of 16 codes" in bar.postfix
        bar.update(2)
        assert not bar.postfix
    capsys.readouterr()
    with cli.Bar(3, 0, "drawing", shown=False) as bar:
        bar.codes(1, 2)
        bar.update()
    assert not capsys.readouterr().err


def test_a_finished_training_says_what_to_run_next(capsys, tmp_path):
    """Commands that their parsers take."""
    buckets = ((60, (("draw", 0, 4), ("judge", 0, 4))),)
    edits = ((90, (("edit", 0, 4), ("judge_edit", 0, 4))),)
    real = ConfigDict({"preset": "7b", "prompts": "p.txt", "buckets": buckets, "task": "draw"})
    world = ConfigDict({"preset": "shapes", "prompts": "", "buckets": buckets, "task": "draw"})
    edited = ConfigDict({"preset": "shapes", "prompts": "", "edit_prompts": "", "buckets": edits, "task": "edit"})
    drawn = ConfigDict({"preset": "1b", "buckets": ((60, (("draw", 0, 4),)),)})
    said = train_sft.next_commands(drawn, tmp_path / "sft", ["a cup"], [-1])
    assert [line.split()[0] for line in said] == ["generate"]  # it was taught no judging
    lesson = ConfigDict({"preset": "shapes", "buckets": ((62, (("draw", 0, 8),)), (126, (("edit", 0, 9),)))})
    (line,) = train_sft.next_commands(lesson, tmp_path / "sft", ["make it red"], [0])  # config.draws has the prompts
    assert line.split()[0] == "edit" and "--instruction 'make it red'" in line
    for config in (world, real, edited):
        said += train_sft.next_commands(config, tmp_path / "sft", ["make it red", 'it\'s a "circle"'], [0, -1])
        said += train_rl.next_commands(config, tmp_path / "rl")
    cli.finished("the model", tmp_path / "model", *said)
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == f"the model is {tmp_path / 'model'}; next:" and len(lines) == 14
    assert sum("--suite shapes_edit" in line for line in lines) == 2 == sum(".edit --" in line for line in lines)
    assert sum("circle" in line for line in lines) == 2 and sum("make it red" in line for line in lines) == 1
    for line in lines:
        python, m, module, *flags = shlex.split(line)
        command = module.removeprefix("janus_jax.")
        assert (python, m) == ("python", "-m") and command in COMMANDS
        if command.startswith("train"):
            file = flags[flags.index("--config") + 1]
            cli.parse_config([f"--config={CONFIGS.parent / file}", *flags[2:]], "")
        else:
            with pytest.raises(UserError, match="no checkpoint at|cannot read p.txt"):  # its flags are right
                importlib.import_module(f"janus_jax.{command}").main(flags)

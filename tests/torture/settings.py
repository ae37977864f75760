"""Command lines that make no sense: a flag or a setting with a value that it cannot have. The refusal names it."""

from collections.abc import Callable
from contextlib import redirect_stderr
from importlib import import_module
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np
from commands import CONFIGS, MICRO

from janus_jax.checkpoints import loading
from janus_jax.errors import UserError
from janus_jax.training import lock, settings

COUNT = 150
WRONG = ("nan", "inf", "-inf", "-7", "hot", "", "1e999", "[]", "7.5.1", "-0x1")
STAGES = {
    "train_vq": (str(CONFIGS / "shapes_vq.py"), settings.VQ),
    "train_sft": (MICRO, settings.SFT),
    "train_rl": (str(CONFIGS / "shapes_rl.py"), settings.RL),
}
DRAWING = ("cfg", "temperature", "image-top-k", "image-top-p", "text-top-p", "max-reason-tokens", "seed", "batch")
SPEAKING = ("temperature", "top-k", "top-p", "max-tokens", "seed")
COMMANDS = {
    "generate": (("--prompt", "a"), ("samples", "rounds", "first-sample", *DRAWING)),
    "edit": (("--image", "{picture}", "--instruction", "a"), ("samples", "rounds", *DRAWING)),
    "evaluate": ((), ("samples", "rounds", "prompts-per-category", *DRAWING)),
    "judge": (("--image", "{picture}", "--prompt", "a"), ("batch", *SPEAKING)),
    "chat": (("--question", "a"), SPEAKING),
}
ANY_NUMBER = ("max_logp_gap",)  # a negative bound ends the run at once, on purpose


class Taken(Exception):
    """The command would have begun its work."""


def _taken(*args, **named):
    raise Taken


def _lines() -> list[tuple]:
    """(command, what it is called with, the name of what is wrong, the flag) of every line."""
    found = []
    for command, (config, table) in STAGES.items():
        for name, rule in table.items():
            values = () if rule.kind is str and not rule.choices else ("maybe", "7") if rule.kind is bool else WRONG
            values = () if name in ANY_NUMBER else values
            given = ("--config", config, "--workdir", "{folder}/w")
            found += [(command, given, name, f"--config.{name}={value}") for value in values]
    for command, (given, names) in COMMANDS.items():
        out = () if command in ("judge", "chat") else ("--out", "{folder}/out")
        given = ("--checkpoint", "shapes-sft", *given, *out)
        found += [(command, given, name, f"--{name}={value}") for name in names for value in WRONG]
    return found


def outcome(main, given, name, flag, folder) -> tuple[str, str]:
    """(what came of it, what was said)."""
    said = StringIO()
    picture = Path(__file__).parents[2] / "docs" / "storyboard.png"
    argv = [part.format(folder=folder, picture=picture) for part in given] + [flag]
    load, held = mock.patch.object(loading, "load", _taken), mock.patch.object(lock, "held", _taken)
    try:
        with load, held, redirect_stderr(said):
            main(argv)
        return "silent", "it came to its end"
    except Taken:
        return "silent", "it would have begun"
    except UserError as error:
        line = str(error)
    except SystemExit as error:
        line = said.getvalue().strip().rsplit("\n", 1)[-1]
        if error.code != 2:
            return "traceback", f"exit status {error.code}"
    except BaseException as error:  # whatever it is, a user would see it
        return "traceback", repr(error)
    named = name in line or name.replace("-", "_") in line
    return ("refused" if named and "\n" not in line else "traceback"), line


def trials(done: Callable[[int], bool], count: int = COUNT):
    """(seed, result, what) of the trials that are not done."""
    lines = _lines()
    for seed, place in enumerate(np.random.default_rng(0).permutation(len(lines))[:count]):
        if done(seed):
            continue
        command, given, name, flag = lines[place]
        with TemporaryDirectory() as folder:
            result, said = outcome(import_module(f"janus_jax.{command}").main, given, name, flag, folder)
            left = sorted(path.name for path in Path(folder).rglob("*") if path.is_file())
        if result == "refused" and left:
            result, said = "silent", f"refused, but {left} was written"
        yield seed, result, f"{command} {flag}: {said}"

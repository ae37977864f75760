"""What every command shares: flags, reading configuration files, one-line errors, SIGTERM, a progress line."""

import argparse
import contextlib
import os
import signal
import socket
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable
from logging import getLogger
from pathlib import Path

from absl import flags, logging
from ml_collections import ConfigDict, config_flags
from tqdm import tqdm

from janus_jax import compilation, configuration, heap, profile
from janus_jax.errors import UserError


class Parser(argparse.ArgumentParser):
    """The flags of a command, of its docstring and name. Each has a help, in which its default is named; none may be
    given twice unless it says so (action="append"): the first would be forgotten in silence. Errors are UserErrors."""

    def __init__(self, command: str, doc: str):
        super().__init__(
            prog=f"python -m janus_jax.{command}", description=doc, formatter_class=_Help, allow_abbrev=False
        )
        for action in (None, "store"):
            self.register("action", action, _Once)

    def error(self, message):
        """What argparse calls with what is wrong."""
        raise UserError(f"{message}: see {self.prog} --help")


class _Once(argparse.Action):
    _given = False

    def __call__(self, parser, namespace, values, option_string=None):
        if self._given:
            parser.error(f"{option_string} is given twice")
        self._given = True
        setattr(namespace, self.dest, values)


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    def _get_help_string(self, action):
        """With the default, unless the help names it: None and an empty list mean what the help says."""
        if "default:" in action.help or action.default is None or action.default == []:
            return action.help
        return f"{action.help} (default: off)" if action.default is False else super()._get_help_string(action)


def run(main, leave=sys.exit) -> None:
    """Runs a command's main(argv); a UserError becomes one line and exit status 2, Ctrl-C one and 130. leave(status)
    ends the process after an error; see hosts.leave."""
    heap.keep()
    # What fails is said once, by us; orbax and its tasks would say the same, each with a traceback.
    logging.set_verbosity(logging.FATAL)
    getLogger("asyncio").setLevel("CRITICAL")
    sys.unraisablehook = _unraisable
    # orbax leaves the rest of a failed save unawaited
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    compilation.keep()
    compilation.announce()
    try:
        main(sys.argv[1:])
        profile.end()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        leave(2)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        leave(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception:
        traceback.print_exc()
        leave(1)


def _unraisable(what) -> None:
    """What nobody can catch. tensorstore reports each write that was under way when a save failed to an event loop that
    is gone by then; of the save itself there is a line."""
    if not (isinstance(what.exc_value, RuntimeError) and str(what.exc_value) == "Event loop is closed"):
        sys.__unraisablehook__(what)


def parse_config(argv, doc: str, workdir: bool = True):
    """Reads `--config FILE --workdir DIR [--config.key=value]`. Returns (config, workdir Path); workdir False: the
    command has no such flag, and None stands in its place.

    Raises UserError for an unknown key, a value of the wrong type, an unreadable file, a missing flag, or a workdir
    that cannot be written to.
    """
    needed = "--config FILE --workdir DIR" if workdir else "--config FILE"
    if any(arg in ("-h", "--help", "-help") for arg in argv):
        _help(argv, doc, needed)
    argv, entries = configuration.without_model(argv)
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "configuration file", flag_values=values)
    if workdir:
        flags.DEFINE_string("workdir", None, "where checkpoints, metrics and the model go", flag_values=values)
        flags.DEFINE_string("profile", None, profile.HELP, flag_values=values)
    # config_flags looks for its overrides in sys.argv, whatever it is given
    command, sys.argv = sys.argv, [sys.argv[0], *argv]
    try:
        rest = values(sys.argv)
        config, folder = values.config, values.workdir if workdir else ""
        if entries and isinstance(config, ConfigDict):
            configuration.set_model(config, entries)
    except (
        flags.Error,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        OSError,
        ImportError,
        NameError,
        SyntaxError,
    ) as error:
        # messages come as the repr of a repr: escapes are no help to a reader
        reason = " ".join(str(error).replace("\\n", ". ").replace("\\'", "").split())
        if isinstance(error, (AttributeError, KeyError)):
            reason = f"unknown key config.{reason.strip(chr(34) + chr(39))}"
        raise UserError(f"{reason} (see the configuration file for its keys)") from error
    finally:
        sys.argv = command
    if len(rest) > 1:
        raise UserError(f"unexpected argument {rest[1]!r}: the flags are {needed} and --config.key=value")
    if config is None or folder is None:
        raise UserError(f"needed: {needed}, as in --config configs/NAME.py")
    if "://" in str(folder):
        raise UserError(f"--workdir {folder} is no folder: mount the bucket (gcsfuse) and give the mount's path")
    if workdir:
        writable(Path(folder) / "metrics.jsonl", "--workdir")
        profile.wanted(values.profile)
    if not isinstance(config, ConfigDict):  # config_flags puts a file that failed to load off until it is used
        raise UserError(
            "the configuration file is missing or cannot be read: --config takes a Python file with get_config()"
        )
    return config, Path(folder) if workdir else None


def _help(argv, doc, needed):
    """Prints what a command with a configuration does, and the keys of the one that is given; ends the process."""
    profiled = " [--profile DIR]" if "--workdir" in needed else ""
    print(f"{doc.strip()}\n\nflags: {needed}{profiled} [--config.key=value ...]")
    named = [one for pair in zip(argv, [*argv[1:], ""], strict=True) for one in _config_in(*pair)]
    if not named:
        print("\nWith a --config FILE beside --help, its keys are listed with their defaults.")
        sys.exit(0)
    config, _ = parse_config([f"--config={named[-1]}"], doc, workdir=False)
    print(f"\nkeys of {named[-1]}, with their defaults:")
    print(configuration.described(config, Path(named[-1].partition(":")[0])))
    if "model" in config:
        print("\n--config.model.PART.ENTRY=VALUE changes the model, as --config.model.llama.layers=2 does.")
    sys.exit(0)


def _config_in(arg, after):
    """The configuration file that an argument names, or the one after it."""
    if arg in ("--config", "-config"):
        return [after]
    return [arg.partition("=")[2]] if arg.startswith(("--config=", "-config=")) else []


def writable(path, flag: str = "--out") -> None:
    """Raises UserError where a file could not be written, before the work rather than after it; flag: what to change.
    Makes nothing."""
    path = Path(path)
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another {flag}") from error


def write(path, content: str) -> None:
    """Writes a text file; it appears once it is complete. Raises UserError where it cannot be written."""
    path = Path(path)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(content, encoding="utf-8")
        scratch.replace(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}; choose another place") from error


def add_model_flags(parser, checkpoint: str | None = None, mesh: bool = True) -> None:
    """The flags that say which model a command uses, and how. checkpoint: the default, None: it must be given; mesh:
    whether it may lie on several devices."""
    where = "a folder, a hub id, or shapes-sft, shapes-rl"
    parser.add_argument("--checkpoint", required=not checkpoint, default=checkpoint, help=where)
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of the parameters and the computation; bfloat16 takes half the memory, and on a CPU many times the time",
    )
    if mesh:
        parser.add_argument(
            "--mesh",
            metavar="AXIS=N,...",
            help="several devices: data and fsdp split the pictures, tensor the layers; fsdp also shards the "
            "parameters while they load; as data=2,tensor=4 (default: one device)",
        )


def finished(what: str, place: Path, *commands: str) -> None:
    """Says where a finished training's result lies, and what to run next: the arguments of `python -m janus_jax.`."""
    print(f"{what} is {place}; next:", *(f"  python -m janus_jax.{line}" for line in commands), sep="\n", flush=True)


class Stop:
    """True once SIGTERM or SIGINT arrived; a training loop looks at it after each step, saves and leaves. As a context
    manager it gives the signals back at its end.

    at_once: where it is a function, a signal ends the process in a line, `said`, instead, after calling it: while there
    is nothing to save yet. Python sees no signal while a program compiles, so another thread waits for it.
    """

    def __init__(
        self, at_once: Callable[[], None] | None = None, said: str = "stopped before the first step; nothing was lost"
    ):
        self.at_once, self._said, self._set, self._told = at_once, said, False, None
        self._before = {name: signal.signal(name, self._on_signal) for name in (signal.SIGTERM, signal.SIGINT)}
        if at_once:
            self._arrived, self._told = socket.socketpair()
            self._told.setblocking(False)
            # that of an event loop, in a notebook
            self._told_before = signal.set_wakeup_fd(self._told.fileno(), warn_on_full_buffer=False)
            threading.Thread(target=self._watch, daemon=True).start()

    def _on_signal(self, number, frame):
        self._set = True

    def _watch(self):
        with self._arrived:
            while number := self._arrived.recv(1):
                if number[0] in (signal.SIGTERM, signal.SIGINT) and (last := self.at_once):
                    last()
                    print(self._said, file=sys.stderr, flush=True)
                    os._exit(128 + number[0])

    def __bool__(self):
        return self._set

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.at_once = None
        for name, handler in self._before.items():
            signal.signal(name, handler)
        if self._told:
            signal.set_wakeup_fd(self._told_before, warn_on_full_buffer=False)
            self._told.close()


def keeping() -> Stop:
    """For a command whose finished work lies on the disk already: a signal ends it at once, in a line."""
    return Stop(lambda: None, "stopped; what is finished is kept, and the same command goes on with the rest")


@contextlib.contextmanager
def quiet():
    """Keeps back what libraries written in C++ print on stderr; where the body fails, but for a UserError, it is shown.
    What the body itself prints there is kept back, too."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as said:
        before = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            yield
        except UserError:
            raise
        except Exception:
            said.seek(0)
            os.write(before, said.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)


class Bar(tqdm):
    """A bar of what a command has finished of `total`, and how far the pictures under way are."""

    def __init__(self, total: int, done: int, title: str, unit: str = "picture", shown: bool = True):
        interval = 0.1 if sys.stderr.isatty() else 30.0
        super().__init__(total=total, initial=done, desc=title, unit=unit, disable=not shown, mininterval=interval)
        self._said = ""

    def codes(self, drawn: int, of: int) -> None:
        """What a drawing calls as it goes: of the pictures under way, so many of their codes are there."""
        self._said = f"{drawn} of {of} codes of the next"
        self.set_postfix_str(self._said, refresh=sys.stderr.isatty())

    def update(self, n=1):
        """So many more are finished."""
        if self._said:
            self._said = ""
            self.set_postfix_str("", refresh=False)
        return super().update(n)


def progress(first: int, total: int, title: str, shown: bool = True):
    """A tqdm bar over steps first..total with rate and time left; sparse where stderr is no terminal."""
    interval = 0.5 if sys.stderr.isatty() else 30.0
    settings = {"mininterval": interval, "maxinterval": 60, "unit": "step", "disable": not shown}
    return tqdm(total=total, initial=first, desc=title, **settings)

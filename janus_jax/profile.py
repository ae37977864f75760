"""--profile DIR: jax's profile of some steps of a command, for TensorBoard's profiler or ui.perfetto.dev.

jax has one profiler per process, so what is asked for is kept here. Whatever works in steps says where each begins; the
first name that is heard is the one that counts, and steps inside of its steps are not counted.
"""

import dataclasses
import sys
from pathlib import Path

from janus_jax.errors import UserError

HELP = "a folder for jax's profile of some steps, for TensorBoard or ui.perfetto.dev (default: none)"


@dataclasses.dataclass
class _Profile:
    folder: Path
    name: str = ""
    begun: int = 0
    running: bool = False


_profile: _Profile | None = None


def wanted(folder) -> None:
    """A profile goes into this folder; None: there is none. Raises UserError where it cannot be made."""
    global _profile
    _profile = folder and _Profile(Path(folder))
    try:
        if _profile:
            _profile.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; choose another --profile") from error


def step(name: str, first: int, count: int) -> None:
    """A step of this name begins. `count` of them are recorded from number `first` on: those before it compile."""
    if not _profile or _profile.name not in ("", name):
        return
    if _profile.begun == first:
        jax = sys.modules["jax"]  # what has steps imported it; commands that have none shall not
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # a line for each call of a function: too many to read
        jax.profiler.start_trace(_profile.folder, profiler_options=options)
        _profile.running = True
    elif _profile.begun == first + count:
        end()
    if _profile:
        _profile.name, _profile.begun = name, _profile.begun + 1


def end() -> None:
    """Writes what was recorded, and records no more."""
    global _profile
    if _profile and _profile.running:
        sys.modules["jax"].profiler.stop_trace()
        print(f"the profile is in {_profile.folder}", flush=True)
    _profile = None

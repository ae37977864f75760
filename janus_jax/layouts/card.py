"""The reproduction card: all that determines a benchmark's pictures."""

import hashlib
from pathlib import Path

import jax
from ml_collections import ConfigDict

from janus_jax.parallel import alike

UNSAID = "not truncated"


def digest(paths) -> str:
    """SHA-256 of files, or of folders of .txt files, one after another. Raises OSError."""
    total = hashlib.sha256()
    for path in map(Path, paths):
        for file in sorted(path.glob("*.txt")) if path.is_dir() else [path]:
            total.update(file.read_bytes())
    return total.hexdigest()


def versions() -> dict[str, str]:
    """What drew: the code, its libraries, and the device."""
    return alike.facts(ConfigDict()) | {"device": jax.local_devices()[0].device_kind}


def differences(began: dict, now: dict) -> str:
    """What differs between two cards, "" where nothing does."""
    names = [name for name in dict.fromkeys([*began, *now]) if began.get(name) != now.get(name)]
    return "; ".join(f"{name} was {began.get(name)!r}, is {now.get(name)!r}" for name in names)


def readable(settings: dict) -> str:
    """The card as Markdown."""
    rows = "".join(f"| {name} | {_shown(value)} |\n" for name, value in settings.items())
    return (
        f"# How these pictures were drawn\n\n| | |\n|---|---|\n{rows}\n"
        "A picture's random bits depend on the seed, its prompt (and source), the number of the sample, the round and "
        "the position alone.\n"
        "`trajectories/*.jsonl` hold the model's verdict on every picture that it drew, also those that are not here.\n"
    )


def _shown(value):
    if value is None:
        return UNSAID
    text = "; ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
    return "`" + text.replace("|", "\\|").replace("\n", "\\n") + "`"

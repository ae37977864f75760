"""The settings that a training began with: going on with others would draw one curve of two experiments."""

import json
from pathlib import Path

from flax.traverse_util import flatten_dict

from janus_jax import cli, pod
from janus_jax.errors import UserError

FILE = "settings.json"


def same_settings(workdir: Path, config, free: tuple[str, ...]) -> None:
    """Writes the settings of a ConfigDict to WORKDIR/settings.json, or compares them with what is there.

    free: names, or beginnings of dotted names, of settings that may change on the way. Raises UserError that lists the
    others which differ; those that one of both does not know are of another version of the code. Process 0 of a pod
    does it for all.
    """
    path = workdir / FILE
    mine = {name: json.loads(json.dumps(value, default=str)) for name, value in _flat(config).items()}

    def check():
        try:
            began = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cli.write(path, json.dumps(mine, indent=1) + "\n")
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read: remove it to go on with the settings given now") from error
        differ = [
            f"config.{name} was {began[name]!r}, is {mine[name]!r}"
            for name in sorted(began.keys() & mine.keys())
            if began[name] != mine[name] and not name.startswith(free)
        ]
        if differ:
            raise UserError(
                f"{workdir} was begun with other settings ({'; '.join(differ)}): give those, or another --workdir"
            )

    pod.first(check)


def _flat(config) -> dict:
    return flatten_dict(config.to_dict(), sep=".")

"""JSON files of checkpoints. Whatever is wrong with one is one line."""

import json
from pathlib import Path

from janus_jax.errors import UserError


def read(path, kind: type = dict):
    """The value in a file of UTF-8 JSON, with a byte order mark or without. Raises UserError where it cannot be read or
    is no `kind`; FileNotFoundError where it is not there."""
    path = Path(path)
    try:
        value = json.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): copy the checkpoint again") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, numbers or nesting without end
        raise UserError(f"{path} is not valid JSON: copy the checkpoint again") from error
    if not isinstance(value, kind):
        raise UserError(
            f"{path} holds no JSON {'object' if kind is dict else kind.__name__}: copy the checkpoint again"
        )
    return value

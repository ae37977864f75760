"""Edits from a JSON lines file: {"image": FILE, "instruction": TEXT}, files relative to its own."""

import json
from pathlib import Path

from janus_jax.errors import UserError


def read_edits(path) -> list[tuple[Path, list[str]]]:
    """(picture file, [instruction]) of each line; "instruction" may be a list, whose members are turns. Raises
    UserError naming the line that is none."""
    path, edits = Path(path), []
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            told = entry["instruction"]
            turns = [told] if isinstance(told, str) else list(told)
            if not turns or not all(isinstance(turn, str) and turn.strip() for turn in turns):
                raise ValueError
            edits.append((path.parent / entry["image"], turns))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            expected = '{"image": FILE, "instruction": TEXT}'
            raise UserError(f"{path}, line {number}: expected {expected}") from error
    if not edits:
        raise UserError(f"{path} holds no edit: write one JSON object per line")
    return edits

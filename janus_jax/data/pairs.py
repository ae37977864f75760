"""Pictures with their prompts from a JSON lines file: {"image": FILE, "prompt": TEXT}, files relative to its own, and,
where somebody has said so, whether the picture is what the prompt asks for: "right": true or false."""

import json
from pathlib import Path
from typing import NamedTuple

from janus_jax.errors import UserError
from janus_jax.sequences import images


class Pair(NamedTuple):
    """image: a readable picture file; right: None where nothing is said of it."""

    image: Path
    prompt: str
    right: bool | None


def read_pairs(path, labelled: bool = False) -> list[Pair]:
    """The pairs of a file. labelled: "right" is needed, and pictures of both kinds. Raises UserError naming the line
    that is none."""
    path, pairs = Path(path), []
    form = '{"image": FILE, "prompt": TEXT, "right": true or false}' if labelled else '{"image": FILE, "prompt": TEXT}'
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            pair = Pair(path.parent / entry["image"], entry["prompt"].strip(), entry.get("right"))
            images.read(pair.image)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reason = error if isinstance(error, UserError) else f"expected {form}"
            raise UserError(f"{path}, line {number}: {reason}") from error
        if not pair.prompt:
            raise UserError(f"{path}, line {number}: the prompt is empty")
        if not (isinstance(pair.right, bool) or (pair.right is None and not labelled)):
            raise UserError(f"{path}, line {number}: expected {form}")
        pairs.append(pair)
    if not pairs:
        raise UserError(f"{path} holds no pair: write one JSON object per line")
    if labelled and len({pair.right for pair in pairs}) < 2:
        raise UserError(f"{path} holds pictures of one kind alone: give right ones and wrong ones")
    return pairs

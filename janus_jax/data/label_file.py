"""The released label files of stage 1: a JSON object per line, a prompt with its labelled pictures.

    {"promptid": 7, "prompt": "a red cup", "data": [
        {"id": 0, "img_path": "7/0.png", "reason": "Yes, there is a red cup.", "prob": 0.93, "state": 4}, ...]}

state 4 is a right picture, 0 and 1 are wrong ones, 2 and 3 are not used; prob is a judge's probability of Yes.
"""

import dataclasses
import json
import re
from pathlib import Path

from janus_jax.errors import UserError

VERDICTS = {4: "Yes", 0: "No", 1: "No"}
UNUSED = (2, 3)
# The least score of a right picture (to be drawn: 0.8, see data/mixture.py) and the bound of a wrong one's. A picture
# whose state and prob contradict each other is not used.
RIGHT, WRONG = 0.7, 0.5


@dataclasses.dataclass(frozen=True)
class Picture:
    """A labelled picture: its file; score: the judge's probability; reason: begins with the verdict of its state."""

    path: Path
    score: float
    reason: str


@dataclasses.dataclass(frozen=True)
class Labelled:
    """A prompt with its usable pictures, from that line of the file."""

    line: int
    prompt: str
    pictures: tuple[Picture, ...]


def read(path, folder) -> list[Labelled]:
    """The prompts of a label file; img_path is relative to `folder`. Lines without a usable picture are left out.
    Raises UserError naming the line that is none, or where no prompt has both a right and a wrong picture."""
    path, folder = Path(path), Path(folder)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}") from error
    prompts = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                entry = json.loads(line)
                pictures = tuple(p for p in (_picture(item, folder) for item in entry["data"]) if p is not None)
                prompts.append(Labelled(number, entry["prompt"].strip(), pictures))
            except json.JSONDecodeError as error:
                raise UserError(f"{path}, line {number}: it is not JSON ({error.msg})") from error
            except KeyError as error:
                raise UserError(f"{path}, line {number}: {error} is missing") from error
            except (ValueError, TypeError, AttributeError) as error:
                reason = error if isinstance(error, UserError) else "not a prompt with a list of labelled pictures"
                raise UserError(f"{path}, line {number}: {reason}") from error
    if not any({p.score >= RIGHT for p in prompt.pictures} == {True, False} for prompt in prompts):
        raise UserError(f"{path} has no prompt with both a right and a wrong picture: there is nothing to learn from")
    return [prompt for prompt in prompts if prompt.pictures]


def _picture(item, folder) -> Picture | None:
    """One labelled picture, None where it is not used."""
    state, score = item["state"], item["prob"]
    if state in UNUSED:
        return None
    if state not in VERDICTS:
        raise UserError(f"state {state!r} is none of 0 to 4")
    if not isinstance(score, (int, float)) or not 0 <= score <= 1:
        raise UserError(f"prob {score!r} is no number between 0 and 1")
    verdict = VERDICTS[state]
    # the judge's own first word may contradict the state, which counts
    reason, found = re.subn(r"^\s*(yes|no)\b", verdict, item["reason"], flags=re.IGNORECASE)
    if not found:
        raise UserError(f"the reason {item['reason'][:40]!r} begins with neither Yes nor No")
    contradicted = score < RIGHT if verdict == "Yes" else score >= WRONG
    return None if contradicted else Picture(folder / item["img_path"], float(score), reason)

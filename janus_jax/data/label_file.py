"""The released label files of stage 1: a JSON object per line, a prompt with its labelled pictures.

    {"promptid": 7, "prompt": "a red cup", "data": [
        {"id": 0, "img_path": "7/0.png", "reason": "Yes, there is a red cup.", "prob": 0.93, "state": 4}, ...]}

state 4 is a right picture, 0 and 1 are wrong ones, 2 and 3 are not used; prob is a judge's probability of Yes.
"""

import dataclasses
import re
from pathlib import Path

from janus_jax.data import records
from janus_jax.errors import UserError

VERDICTS = {4: "Yes", 0: "No", 1: "No"}
UNUSED = (2, 3)
# The least score of a right picture (to be drawn: that of shapes/verify.py) and the bound of a wrong one's. A picture
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


def read(path, folder, tally: records.Tally | None = None, allow_outside: bool = False) -> list[Labelled]:
    """The prompts of a label file; img_path is relative to `folder`, and inside it unless outside is allowed. Lines
    without a usable picture are left out. tally: counts bad pictures, and bad lines as one. Raises UserError where too
    many are bad, or where no prompt has both a right and a wrong picture."""
    tally, prompts = tally or records.Tally(path), []
    for number, line in records.lines(path, tally):
        try:
            entry = records.json_object(line)
            prompt, items = records.text_in(entry, "prompt"), entry.get("data")
            if not isinstance(items, list):
                raise records.BadRecord("'data' is missing" if items is None else "'data' is no list")
        except UserError as error:
            tally.refuse(number, error)
            continue
        pictures = []
        for item in items:
            try:
                picture = _picture(item, Path(folder), allow_outside)
                tally.good += 1
            except UserError as error:
                tally.refuse(number, error)
            else:
                pictures += [] if picture is None else [picture]
        prompts.append(Labelled(number, prompt, tuple(pictures)))
    tally.check()
    if not any({p.score >= RIGHT for p in prompt.pictures} == {True, False} for prompt in prompts):
        raise UserError(f"{path} has no prompt with both a right and a wrong picture: there is nothing to learn from")
    return [prompt for prompt in prompts if prompt.pictures]


def _picture(item, folder, allow_outside) -> Picture | None:
    """One labelled picture, None where it is not used."""
    if not isinstance(item, dict) or not {"state", "prob"} <= set(item):
        raise records.BadRecord("a labelled picture has img_path, reason, prob and state")
    state, score = item["state"], item["prob"]
    if state in UNUSED:
        return None
    if isinstance(state, bool) or state not in (*VERDICTS,):
        raise records.BadRecord(f"state {state!r} is none of 0 to 4", "a state that is none of 0 to 4")
    if isinstance(score, bool) or not isinstance(score, (int, float)) or not 0 <= score <= 1:
        raise records.BadRecord(f"prob {score!r} is no number between 0 and 1", "a prob that is none")
    verdict, said = VERDICTS[state], records.text_in(item, "reason")
    # the judge's own first word may contradict the state, which counts
    reason, found = re.subn(r"^(yes|no)\b", verdict, said, flags=re.IGNORECASE)
    if not found:
        kind = "a reason that begins with neither Yes nor No"
        raise records.BadRecord(f"the reason {said[:40]!r} begins with neither Yes nor No", kind)
    path = records.path_in(item, "img_path", folder, allow_outside)
    contradicted = score < RIGHT if verdict == "Yes" else score >= WRONG
    return None if contradicted else Picture(path, float(score), reason)

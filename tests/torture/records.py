"""Files of records of which one is malformed: it is left out and counted, and the others are read."""

import copy
import json
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from janus_jax.data import label_file, pairs, prompts
from janus_jax.data.records import Tally
from janus_jax.errors import UserError

COUNT = 100
GOOD = 30
PAIR = {"image": "a.png", "prompt": "two red cups", "right": True}
SIDES = [("a.png", "Yes, two.", 0.9, 4), ("a.png", "No, one.", 0.1, 0)]
LABEL = {
    "prompt": "two red cups",
    "data": [dict(zip(("img_path", "reason", "prob", "state"), side, strict=True)) for side in SIDES],
}
VALUES = (None, 7, [], {}, "", " ", True, float("nan"), 1e308, "x\ud800")
PATHS = ("../../a.png", "/etc/passwd", "..", "a.png\0")  # whether a picture can be read is seen later
BYTES = (b"\xff\xfe", b"{", b"[]", b"null", b"NaN", b"[" * 100_000, b'{"a":' * 10_000, b"7", b'"\\ud800"', b"\x00")


def _read_prompts(path):
    return prompts.read_prompts(path)


def _read_labels(path):
    tally = Tally(path)
    found = label_file.read(path, path.parent, tally)
    tally.close()
    return [(each.prompt, each.pictures) for each in found]


def _line(rng, kind: str) -> tuple[bytes, bytes]:
    """(a good line, one that is malformed)."""
    if kind == "prompts":
        return b"two red cups", BYTES[0]
    record = PAIR if kind == "pairs" else LABEL
    good = json.dumps(record).encode()
    if rng.random() < 0.4:
        return good, BYTES[rng.integers(len(BYTES))]
    bad = copy.deepcopy(record)
    inside = bad if kind == "pairs" or rng.random() < 0.3 else bad["data"][rng.integers(2)]
    key = sorted(inside)[rng.integers(len(inside))]
    if rng.random() < 0.2:
        del inside[key]
    else:
        values = VALUES + PATHS * (key in ("image", "img_path"))
        inside[key] = values[rng.integers(len(values))]
    return good, json.dumps(bad).encode()


READERS = {"pairs": pairs.read_pairs, "labels": _read_labels, "prompts": _read_prompts}


def outcome(seed: int, folder: Path) -> tuple[str, str]:
    """(what came of it, what the line was)."""
    rng = np.random.default_rng(seed)
    kind = sorted(READERS)[seed % len(READERS)]
    good, bad = _line(rng, kind)
    path, said = folder / "records", StringIO()
    Image.new("RGB", (16, 16)).save(folder / "a.png")
    lines = [good] * GOOD
    path.write_bytes(b"\n".join(lines))
    expected = READERS[kind](path)
    lines.insert(int(rng.integers(GOOD)), bad)
    path.write_bytes(b"\n".join(lines))
    what = f"{seed}: {kind}: {bad[:160]!r}"
    try:
        with redirect_stderr(said):
            found = READERS[kind](path)
    except UserError as error:
        return "silent", f"{what}: the whole file is refused: {error}"
    except Exception as error:  # whatever it is, a user would see it
        return "traceback", f"{what}: {error!r:.300}"
    told = said.getvalue().count("\n")
    # of a prompt with labelled pictures the good ones stay
    whole = [each for each in found if kind != "labels" or len(each[1]) == len(SIDES)]
    if whole == expected and told == 1:
        return "refused", f"{what}: {said.getvalue().strip()}"
    same = _harmless(kind, bad) and told == 0
    return ("equal" if same else "silent"), f"{what}: {len(found)} read of {GOOD}, {told} lines said"


def _harmless(kind, bad) -> bool:
    """Whether a line is none too bad: the change left a record that says something."""
    try:
        record = json.loads(bad)
    except (ValueError, RecursionError):
        return False
    if not isinstance(record, dict):
        return False
    if kind == "pairs":  # nobody asked what is right
        return {**record, "right": True} == PAIR
    return False


def trials(done: Callable[[int], bool], count: int = COUNT):
    """(seed, result, what) of the trials that are not done."""
    for seed in range(count):
        if not done(seed):
            with TemporaryDirectory() as folder:
                yield seed, *outcome(seed, Path(folder))

"""The metrics' file and TensorBoard's: what a kill or a full disk does to them."""

import errno
import json
import struct

import numpy as np
import pytest
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event

from janus_jax.errors import UserError
from janus_jax.training import metrics as metrics_module
from janus_jax.training import writers
from janus_jax.training.metrics import Metrics


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def events(folder):
    """What TensorBoard would read: records of (length u64, crc, bytes, crc)."""
    found = []
    for path in sorted((folder / "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            found.append(Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return found


def test_what_is_written(tmp_path):
    with Metrics(tmp_path, "rl") as metrics:
        assert metrics.write(1, {"loss": np.float32(0.5), "gap": float("nan")})["loss"] == 0.5
        metrics.image(1, "storyboard", np.zeros((4, 6, 3), np.uint8))
        assert lines(tmp_path) == [{"stage": "rl", "step": 1, "loss": 0.5, "gap": None}]  # at once
        scalars = {v.tag: v.simple_value for e in events(tmp_path) for v in e.summary.value if not v.image.height}
        assert scalars["rl/loss"] == 0.5 and np.isnan(scalars["rl/gap"])
    assert [v.tag for e in events(tmp_path) for v in e.summary.value if v.image.height] == ["rl/storyboard"]


def test_another_process_of_a_pod_writes_nothing(tmp_path):
    with Metrics(tmp_path, "rl", writes=False) as metrics:
        assert metrics.write(1, {"loss": 1}) == {"loss": 1.0}
        metrics.image(1, "storyboard", np.zeros((4, 6, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def test_each_step_stands_once(tmp_path):
    """A run is killed after step 3, in the middle of a line, and goes on from step 2."""
    with Metrics(tmp_path, "rl") as metrics:
        for step in (1, 2, 3):
            metrics.write(step, {"loss": step})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"stage": "rl", "step": 4, "clip_fr')
    with Metrics(tmp_path, "rl", done=2) as metrics:
        metrics.write(3, {"loss": 30})
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(1, 1), (2, 2), (3, 30)]
    starts = [event.step for event in events(tmp_path) if event.HasField("session_log")]
    assert starts == [1, 3]  # TensorBoard hides what it read of these steps and later ones before


def test_what_somebody_else_wrote_stays(tmp_path):
    before = '{"stage": "sft", "step": 9, "loss": 1}\nnot JSON\n[]\n'
    (tmp_path / "metrics.jsonl").write_text(before)
    with Metrics(tmp_path, "rl", done=2):
        pass
    assert (tmp_path / "metrics.jsonl").read_text() == before


def full(*args):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_line_that_cannot_be_written(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="^cannot write .*metrics.jsonl: No space left on device; make room"):
        with Metrics(tmp_path, "rl") as metrics:
            monkeypatch.setattr(metrics_module.json, "dumps", full)  # TextIOWrapper's methods cannot be replaced
            metrics.write(1, {"loss": 1})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # their file was never to be closed
def test_events_that_cannot_be_written(tmp_path, monkeypatch, capfd):
    """Are left out; the training goes on, and so do they when there is room again."""
    with Metrics(tmp_path, "rl") as metrics:
        board = metrics._writers._writers["tensorboard"]._board
        monkeypatch.setattr(board, "write_event", full)
        metrics.write(1, {"loss": 1})
        metrics.write(2, {"loss": 2})
        with monkeypatch.context() as patch:
            patch.setattr(EventsWriter, "flush", full)
            metrics.write(3, {"loss": 3})
        metrics.write(4, {"loss": 4})
    assert len(lines(tmp_path)) == 4 and capfd.readouterr().err == ""
    found = [event.step for event in events(tmp_path) if event.summary.value]
    assert found[0] == 2 and found[-1] == 4
    monkeypatch.setattr(writers, "EventsWriter", full)
    with Metrics(tmp_path, "rl", done=4) as metrics:
        metrics.write(5, {"loss": 1})
    assert len(lines(tmp_path)) == 5

"""Groups of trajectories: rounds are drawn full, and what several rows ask for is read once."""

import numpy as np
import pytest
from tiny import MODEL, params, processor
from trajectories import PROMPTS, SAMPLING, draw, drawn

from janus_jax.sampling import contexts, rounds
from janus_jax.sampling.introspect import rollouts
from janus_jax.sequences.request import Request

pytestmark = pytest.mark.usefixtures("quick_compiles")


@pytest.fixture
def painted(monkeypatch):
    """[(round, rows)] of every picture that is drawn."""
    heard, paint = [], rounds.paint

    def listen(drawing, record, rows, turn, *context):
        heard.append((turn, len(record)))
        return paint(drawing, record, rows, turn, *context)

    monkeypatch.setattr(rounds, "paint", listen)
    return heard


def test_rows_that_end_make_room(painted):
    """Two at a time: every group is full but the last of its round, and a later round goes first."""
    got = draw(batch=2, rounds=2)
    for turn in range(2):
        reached = sum(len(t.rounds) > turn for t in got)
        expected = [2] * (reached // 2) + [1] * (reached % 2)
        assert [size for at, size in painted if at == turn] == expected
    turns = [turn for turn, _ in painted]
    assert turns != sorted(turns)
    for a, b in zip(got, drawn(), strict=True):
        for one, other in zip(a.rounds, b.rounds, strict=False):
            np.testing.assert_array_equal(one.codes, other.codes)
            np.testing.assert_array_equal(one.reason_ids, other.reason_ids)


def test_or_every_part_for_itself(painted):
    """Where nobody waits, a part's rows are taken through all rounds before the next part begins."""
    work = [(Request(prompt), sample) for prompt in PROMPTS for sample in range(4)]
    parts = list(rollouts(MODEL, params(), processor(), work, 3, SAMPLING, 0, batch=4, refill=False))
    assert [len(part) for part in parts] == [4, 4]
    sizes = [[int((part.rounds > turn).sum()) for turn in range(3)] for part in parts]
    assert painted == [(turn, size) for each in sizes for turn, size in enumerate(each) if size]
    got = [t for part in parts for t in part.trajectories(processor())]
    assert [len(t.rounds) for t in got] == [t.final + 1 for t in drawn()]
    np.testing.assert_array_equal([t.rounds[0].codes for t in got], [t.rounds[0].codes for t in drawn()])


def test_prompts_are_read_once(monkeypatch):
    heard, start = [], contexts.start_painting

    def listen(drawing, record, rows):
        heard.append([record.requests[i].prompt for i in rows])
        return start(drawing, record, rows)

    monkeypatch.setattr(contexts, "start_painting", listen)
    got = draw(rounds=1)
    assert heard == [list(PROMPTS)]
    for a, b in zip(got, drawn(), strict=True):
        np.testing.assert_array_equal(a.rounds[0].codes, b.rounds[0].codes)

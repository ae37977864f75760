"""Decisions that all processes take alike; what the other process says is scripted."""

import jax
import numpy as np
import pytest

from janus_jax.errors import UserError
from janus_jax.parallel import agree


@pytest.fixture
def other(monkeypatch):
    """A list of what a second process says at each look, None: the same as this one."""
    says = []

    def gathered(mine):
        theirs = says.pop(0)
        return np.stack([mine, mine if theirs is None else np.asarray(theirs, mine.dtype)])

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(agree, "gathered", gathered)
    return says


def test_a_file_that_differs_is_named(other):
    other[:] = [None, np.ones(32), np.ones(32)]
    assert agree.read_alike("config.prompts", lambda: ["a"]) == ["a"]
    with pytest.raises(UserError, match="config.prompts is another file on process 1 than on process 0"):
        agree.read_alike("config.prompts", lambda: ["a"])

    def absent():
        raise UserError("cannot read it")

    with pytest.raises(UserError, match="cannot read it"):  # after it has met the other, who then says who differs
        agree.read_alike("config.prompts", absent)
    assert not other


def test_a_single_process_answers_at_once():
    assert agree.first(lambda: {"a": [1]}) == {"a": [1]} and agree.is_first()
    np.testing.assert_array_equal(agree.gathered(np.arange(3)), [[0, 1, 2]])
    np.testing.assert_array_equal(agree.same([1, 2]), [1, 2])
    flag = []
    stop = agree.AnyOf(flag, late=2)
    assert not stop
    flag.append(1)
    assert stop

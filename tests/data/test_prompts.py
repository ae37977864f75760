"""The order of prompts from a file."""

import pytest

from janus_jax.data import prompts
from janus_jax.errors import UserError


def test_every_prompt_once_per_epoch():
    steps = [prompts.of_step(10, 4, seed=3, step=step) for step in range(10)]
    flat = [number for step in steps for number in step]
    epochs = [flat[i : i + 10] for i in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4  # each in an order of its own
    # a step knows nothing of those before it; another seed is another order
    assert prompts.of_step(10, 4, seed=3, step=7) == steps[7]
    assert prompts.of_step(10, 4, seed=4, step=7) != steps[7]
    # more prompts per step than there are
    many = prompts.of_step(3, 7, seed=0, step=0)
    assert [sorted(many[i : i + 3]) for i in (0, 3)] == [[0, 1, 2]] * 2 and len(many) == 7


def test_files(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text(" a red circle \n\n zwei Würfel\n")
    assert prompts.read_prompts(path) == ["a red circle", "zwei Würfel"]
    path.write_text("\n \n")
    with pytest.raises(UserError, match="no prompt"):
        prompts.read_prompts(path)
    # a byte order mark is no part of the first prompt, and only a newline ends a line
    path.write_bytes("\ufeffa red\u2028circle\r\n a\x85b\x0cc \n".encode())
    assert prompts.read_prompts(path) == ["a red\u2028circle", "a\x85b\x0cc"]
    path.write_bytes(b"a\n" * 10 + b"\xff\n")
    assert prompts.read_prompts(path) == ["a"] * 10
    with pytest.raises(UserError, match="line 11: it is not UTF-8 text"):
        prompts.read_prompts(path, most_bad=0.0)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match="UTF-8"):
        prompts.read_prompts(path)
    with pytest.raises(UserError, match="cannot read"):
        prompts.read_prompts(tmp_path / "absent")

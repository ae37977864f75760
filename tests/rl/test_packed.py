"""Trajectories as arrays and back."""

import numpy as np
from test_credit import made, processor

from janus_jax.rl import packed


def test_there_and_back():
    drawn = [made(False, True), made(True), made(False, False), made(False, True)]
    arrays = packed.pack(drawn, rounds=3, reason_tokens=6)
    codes, image = drawn[0].rounds[0].codes, drawn[0].rounds[0].image
    form = packed.form_of(3, 6, len(codes), image.size)
    assert {name: (x.shape[1:], x.dtype) for name, x in arrays.items()} == {
        name: (leaf.shape, leaf.dtype) for name, leaf in form.items()
    }
    assert arrays["rounds"].tolist() == [2, 1, 2, 2] and not arrays["codes"][1, 1:].any()
    again = packed.unpack(arrays, ["two red circles", "a blue square"], 2, processor())
    assert [(t.prompt, t.sample) for t in again] == [
        ("two red circles", 0),
        ("two red circles", 1),
        ("a blue square", 0),
        ("a blue square", 1),
    ]
    for before, after in zip(drawn, again, strict=True):
        assert len(before.rounds) == len(after.rounds) and before.final == after.final
        for old, new in zip(before.rounds, after.rounds, strict=True):
            for name in ("codes", "context_codes", "code_logps", "reason_ids", "reason_logps"):
                np.testing.assert_array_equal(getattr(old, name), getattr(new, name))
            assert (old.verdict, np.float32(old.p_yes)) == (new.verdict, np.float32(new.p_yes))
            assert old.image.tobytes() == new.image.tobytes()
            assert new.reason == processor().decode(old.reason_ids)

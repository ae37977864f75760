"""Trajectories as arrays and back."""

import dataclasses

import numpy as np
from PIL import Image
from tiny import processor
from trajectories import made, rollout_of

from janus_jax.sampling.rollout import Rollout
from janus_jax.sequences import images
from janus_jax.sequences.request import Request

ASKED = [Request("two red circles"), Request("a blue square")]


def drawn():
    """Two samples of each request, the longest of two rounds."""
    shots = [made(False, True), made(True), made(False, False), made(False, True, reason=(40, 41, 42))]
    return [dataclasses.replace(t, request=ASKED[i // 2], sample=i % 2) for i, t in enumerate(shots)]


def same(got, expected):
    assert [(t.request, t.sample, t.final) for t in got] == [(t.request, t.sample, t.final) for t in expected]
    for before, after in zip(expected, got, strict=True):
        assert len(before.rounds) == len(after.rounds)
        for old, new in zip(before.rounds, after.rounds, strict=True):
            for name in ("codes", "context_codes", "code_logps", "reason_ids", "reason_logps"):
                np.testing.assert_array_equal(getattr(old, name), getattr(new, name))
            assert (old.verdict, np.float32(old.p_yes)) == (new.verdict, np.float32(new.p_yes))
            assert old.image.tobytes() == new.image.tobytes()
            assert new.reason == processor().decode(old.reason_ids)


def test_there_and_back():
    rollout = rollout_of(drawn(), rounds=3, reason=6)
    codes, image = drawn()[0].rounds[0].codes, drawn()[0].rounds[0].image
    forms = Rollout.forms(3, 6, len(codes), image.width)
    assert {name: (x.shape[1:], x.dtype) for name, x in rollout.arrays.items()} == forms
    assert rollout.rounds.tolist() == [2, 1, 2, 2] and not rollout.codes[1, 1:].any()
    assert rollout.words.tolist() == [[3, 3, 0], [3, 0, 0], [3, 3, 0], [4, 4, 0]]
    same(rollout.trajectories(processor()), drawn())
    # what a checkpoint stores is all but what the step says
    again = Rollout(rollout.requests, rollout.sample, **rollout.arrays)
    same(again.trajectories(processor()), drawn())


def test_take_and_join():
    rollout = rollout_of(drawn())
    same(rollout.take([2, 0]).trajectories(processor()), [drawn()[2], drawn()[0]])
    parts = [rollout.take([0]), rollout.take(np.arange(1, 4))]
    joined = Rollout.join(parts)
    assert len(joined) == 4 and joined.requests == rollout.requests
    same(joined.trajectories(processor()), drawn())


def test_rounds_that_were_drawn_and_the_final_one():
    shots = [made(True), made(False, True), made(False, False, False), made(True, False, True), made(False, True, True)]
    rollout = rollout_of(shots)
    assert rollout.live.tolist() == [[True] * n + [False] * (3 - n) for n in (1, 2, 3, 3, 3)]
    assert rollout.final.tolist() == [t.final for t in shots] == [0, 1, 2, 0, 1]
    # what lies beyond a trajectory's rounds says nothing
    rollout.verdict[2, 2:] = True
    assert rollout.take([2]).final == [2]
    shorter = dataclasses.replace(rollout, rounds=np.array([1, 2, 2, 3, 3]))
    assert shorter.final[2] == 1


def test_pictures_to_judge():
    trajectories = drawn()
    rollout = rollout_of(trajectories)
    expected = [(t.request, shot.image) for t in trajectories for shot in t.rounds]
    assert [(request, image.tobytes()) for request, image in rollout.pictures] == [
        (request, image.tobytes()) for request, image in expected
    ]


def test_pictures_as_the_judge_sees_them():
    """Also where its eye wants another size."""
    rollout = rollout_of(drawn())
    for side in (16, 24):
        seen = rollout.seen(side)
        assert seen.shape == (4, 2, side, side, 3) and seen.dtype == np.uint8
        look = dataclasses.replace(processor(), understanding_size=side)
        for i, turn in np.argwhere(rollout.live):
            picture = Image.fromarray(rollout.images[i, turn])
            np.testing.assert_array_equal(images.NORMALISED[seen[i, turn]], look.for_understanding(picture))

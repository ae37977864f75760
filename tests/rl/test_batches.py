"""Batches of trajectories made by hand; and the identity of stage 2: what is trained is what was drawn."""

import jax
import numpy as np
import pytest
from policy_batches import live, pieces, real
from tiny import EOS, PAD, SEES, I, grammar, params, score
from trajectories import SAMPLING, drawn, made, rollout_of, shot, until, until_yes

from janus_jax.rl.batches import blank, layout, make, with_credit
from janus_jax.rl.credit import CREDITS, FINAL, FIRST, TEXT
from janus_jax.sampling.rollout import Trajectory
from janus_jax.sequences.batch import SEEN
from janus_jax.sequences.request import Request

pytestmark = pytest.mark.usefixtures("quick_compiles")

SIDE = 16  # of a picture that is seen


def numbered(count):
    """Advantages that tell row and column: 10, 20, 30, 30 in the first row, 11, ... in the second."""
    return np.arange(count, dtype=np.float32)[:, None] + np.float32([10, 20, 30, 30])


def batches(kind, trajectories, credited=None, rounds=None, reason_tokens=5):
    credited = numbered(len(trajectories)) if credited is None else credited
    rounds = rounds or CREDITS[kind].rounds or 3
    length = max(len(grammar().prompt(t.request)[0]) for t in trajectories)
    shapes = layout(CREDITS[kind], grammar(), length, rounds, reason_tokens)
    rollout = rollout_of(trajectories, rounds, reason_tokens)
    return with_credit(make(CREDITS[kind], rollout, grammar(), shapes, SIDE), credited)


def test_own_prompt_by_hand():
    painter, judge = batches("released/own_prompt", [made(True), made(False, True)])
    prompt, think, onward = pieces()
    yes, no = shot(True, 0), [shot(False, 0), shot(True, 1)]
    # After a Yes the first picture is trained twice, at the same positions: as the first and as the final one.
    assert real(painter, 0) == prompt + yes.codes.tolist()
    got = live(painter.codes, 0)
    assert got["at"][:I].tolist() == got["at"][I:].tolist()
    assert got["ids"].tolist() == yes.codes.tolist() * 2
    assert got["group"].tolist() == [FIRST] * I + [FINAL] * I
    assert got["advantage"].tolist() == [10] * I + [30] * I
    np.testing.assert_allclose(got["old_logps"], np.tile(yes.code_logps, 2))
    # After a No: two pictures in one causal sequence.
    said = think + no[0].reason_ids.tolist() + onward
    assert real(painter, 1) == prompt + no[0].codes.tolist() + said + no[1].codes.tolist()
    got = live(painter.codes, 1)
    assert got["group"].tolist() == [FIRST] * I + [FINAL] * I
    assert got["advantage"].tolist() == [11] * I + [31] * I
    assert (np.diff(got["at"][:I]) == 1).all() and got["at"][I] - got["at"][0] == I + len(said)
    # The judge: the first verdict alone.
    for row, (t, first) in enumerate([(made(True), yes), (made(False, True), no[0])]):
        assert real(judge, row) == prompt + [0] * SEES + think + t.rounds[0].reason_ids.tolist()
        got = live(judge.text, row)
        assert got["ids"].tolist() == first.reason_ids.tolist()
        assert got["advantage"].tolist() == [20 + row] * 3
        assert set(got["group"].tolist()) == {TEXT}
        assert judge.text.verdict[row][:4].tolist() == [True, False, False, False]
        assert (judge.kind[row] == SEEN).sum() == SEES
    assert judge.pixels.shape[1] == 1
    assert painter.text is judge.codes is judge.uncond_ids is None
    # guidance rows differ in the prompt's inner tokens only
    inner = (painter.uncond_ids != painter.ids).sum(1)
    assert inner.tolist() == [len(prompt) - 2] * 2
    assert (painter.uncond_ids[painter.uncond_ids != painter.ids] == PAD).all()


def test_regen_prompt_by_hand():
    painter, _ = batches("released/regen_prompt", [made(True), made(False, True)])
    prompt, think, onward = pieces()
    yes = shot(True, 0)
    # After a Yes the first picture stands once more where a second one would, in that context.
    said = think + yes.reason_ids.tolist() + onward
    assert real(painter, 0) == prompt + yes.codes.tolist() + said + yes.codes.tolist()
    got = live(painter.codes, 0)
    assert got["ids"].tolist() == yes.codes.tolist() * 2
    assert got["at"][I] - got["at"][0] == I + len(said)
    assert got["group"].tolist() == [FIRST] * I + [FINAL] * I
    # it was never sampled there: no old log-probability
    np.testing.assert_allclose(got["old_logps"][:I], yes.code_logps)
    assert np.isnan(got["old_logps"][I:]).all()
    assert np.isfinite(live(painter.codes, 1)["old_logps"]).all()


def test_always_second_by_hand():
    painter, judge = batches("released/always_second", [made(True, False), made(False, True)])
    prompt, think, onward = pieces()
    for row, t in enumerate([made(True, False), made(False, True)]):
        said = think + t.rounds[0].reason_ids.tolist() + onward
        assert real(painter, row) == prompt + t.rounds[0].codes.tolist() + said + t.rounds[1].codes.tolist()
        got = live(painter.codes, row)
        np.testing.assert_allclose(got["old_logps"], np.concatenate([s.code_logps for s in t.rounds]))
        assert len(live(judge.text, row)["ids"]) == 3


def test_trajectory_by_hand():
    prompt, think, onward = pieces()
    # one reason was cut by the limit, one ended by itself: between the rounds stands exactly one EOS either way
    cut, ended = shot(False, 0), shot(False, 1, reason=(42, EOS))
    last = shot(True, 2, reason=(43, EOS))
    painter, judge = batches("trajectory", [Trajectory(Request("two red circles"), 0, [cut, ended, last])])
    between = [think + cut.reason_ids.tolist() + onward, think + ended.reason_ids[:-1].tolist() + onward]
    assert real(painter, 0) == (
        prompt + cut.codes.tolist() + between[0] + ended.codes.tolist() + between[1] + last.codes.tolist()
    )
    seen = [0] * SEES
    assert real(judge, 0) == prompt + seen + between[0] + seen + between[1] + seen + think + last.reason_ids.tolist()
    assert real(judge, 0).count(EOS) == 3
    # every picture and every word is trained, EOS where it was sampled, the template's never
    got = live(judge.text, 0)
    assert got["ids"].tolist() == [s for t in (cut, ended, last) for s in t.reason_ids.tolist()]
    assert judge.text.verdict[0].sum() == 3
    assert live(painter.codes, 0)["group"].tolist() == [FIRST] * I + [FINAL] * I + [FINAL + 1] * I
    assert len(live(painter.codes, 0)["ids"]) == 3 * I
    np.testing.assert_array_equal(judge.pixels[0, 1], np.asarray(ended.image))


@pytest.mark.parametrize("kind", CREDITS)
def test_layout_holds_the_longest_trajectory(kind):
    rounds = 2 if kind.startswith("released/") else 3
    longest = made(*[False] * rounds, reason=(40,) * 8)
    again = made(*[True] * rounds, reason=(40,) * 8)
    painter, judge = batches(kind, [longest, again], reason_tokens=9)
    assert painter.mask[0].all() and judge.mask[0].all()  # and not a position more
    # shapes depend on the settings alone
    small = batches(kind, [made(True, True), made(True, True)], reason_tokens=9)
    assert jax.tree.map(np.shape, small) == jax.tree.map(np.shape, (painter, judge))


# The identity: scored log-probabilities of sampled trajectories equal the sampler's


def sampled(kind):
    """Trajectories as introspect would have made them for this credit."""
    if kind == "trajectory":
        return [until_yes(t) for t in drawn()]
    two = [until(t, 2) for t in drawn()]
    return two if kind == "released/always_second" else [until_yes(t) for t in two]


@pytest.mark.parametrize("kind", CREDITS)
def test_what_is_trained_is_what_was_drawn(kind):
    trajectories = sampled(kind)
    assert {len(t.rounds) for t in trajectories} >= ({2} if kind == "released/always_second" else {1, 2})
    # one compiled shape for all: the longest
    length = max(len(grammar().prompt(t.request)[0]) for t in trajectories)
    shapes = layout(CREDITS["trajectory"], grammar(), length, 3, SAMPLING.max_reason_tokens)
    credited = np.random.default_rng(0).standard_normal((len(trajectories), FINAL + 2)).astype(np.float32)
    rollout = rollout_of(trajectories, 3)
    painter, judge = with_credit(make(CREDITS[kind], rollout, grammar(), shapes, SIDE), credited)
    assert SAMPLING.cfg_weight == 5.0 and SAMPLING.image_top_k is None
    codes = np.asarray(score(params(), painter, SAMPLING)["codes"])
    words = np.asarray(score(params(), judge, SAMPLING)["text"])
    copies = np.isnan(painter.codes.old_logps)
    trained = (painter.codes.weight > 0) & ~copies
    assert copies.any() == (kind == "released/regen_prompt")
    np.testing.assert_allclose(codes[trained], painter.codes.old_logps[trained], atol=1e-4, rtol=0)
    spoken = judge.text.weight > 0
    np.testing.assert_allclose(words[spoken], judge.text.old_logps[spoken], atol=1e-4, rtol=0)
    # all that was drawn is there: every token of every round that this credit trains
    released = kind.startswith("released/")
    pictures = 2 * len(trajectories) if released else sum(len(t.rounds) for t in trajectories)
    assert (painter.codes.weight > 0).sum() == pictures * I
    judged = [s for t in trajectories for s in t.rounds[: 1 if released else None]]
    assert spoken.sum() == sum(len(s.reason_ids) for s in judged)
    # each with its column's advantage
    for targets in (painter.codes, judge.text):
        each = np.take_along_axis(credited, targets.group, axis=1)
        np.testing.assert_array_equal(targets.advantage, np.where(targets.weight > 0, each, 0))


def test_the_identity_covers_three_rounds():
    assert {len(t.rounds) for t in sampled("trajectory")} == {1, 2, 3}


# Credit, filled in


def test_what_is_not_known_trains_nothing():
    """A row whose rewards are missing, and one that lacks only its second picture's."""
    nan = np.nan
    credited = np.float32([[1, 2, 3, 4], [nan] * 4, [1, 2, nan, nan], [1, 2, 3, nan]])
    trajectories = [made(False, False, True), made(True), made(False, True), made(False, False, False)]
    painter, judge = batches("improvement", trajectories, credited)
    for targets in (painter.codes, judge.text):
        assert np.isfinite(targets.advantage).all()
        assert (targets.weight.sum(1) > 0).tolist() == [True, False, True, True]
    assert (painter.codes.weight.sum(1) / I).tolist() == [3, 0, 1, 2]
    assert sorted(set(painter.codes.advantage[0].tolist())) == [1, 3, 4]


def test_a_blank_batch_has_the_shapes_of_a_real_one():
    shapes = layout(CREDITS["trajectory"], grammar(), 20, 3, 5)
    for guided in (True, False):
        real = make(CREDITS["trajectory"], rollout_of([made(True)] * 2, 3, 5), grammar(), shapes, SIDE, guided)
        empty = blank(shapes, 2, SIDE, guided)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), empty) == jax.tree.map(lambda x: (x.shape, x.dtype), real)
        assert (empty[0].uncond_ids is None) == (not guided)

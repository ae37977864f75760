"""Rewards to advantages to batches; and the identity of stage 2: what is trained is what was drawn."""

import functools

import jax
import numpy as np
import pytest
from PIL import Image
from test_batch import EOS, MODEL, NO, PAD, SEES, YES, I, params, processor, score
from test_introspect import SAMPLING, drawn, until_yes

from janus_jax.rl import credit as credits
from janus_jax.rl import sight
from janus_jax.rl.advantages import grpo
from janus_jax.rl.credit import CREDITS, FINAL, FIRST, TEXT, Credited, credit, layout, pg_batch, trajectory_reward
from janus_jax.sampling.density import Sampling
from janus_jax.sampling.introspect import Round, Trajectory, introspect
from janus_jax.sequences import tokens
from janus_jax.sequences.batch import SEEN
from janus_jax.training.logps import token_logps

pytestmark = pytest.mark.usefixtures("quick_compiles")


# Rewards and credit


@pytest.mark.parametrize(
    "verdicts, rewards, expected",
    [
        # K = 1: 3 x 0.2, and 3/1 (1 - 0.8)
        ([1], [0.2], 0.6 + 0.6),
        # K = 2: 0.2 + 2 x 0.6, and 3/2 ((1 - 0.2) + (1 - 0.4))
        ([0, 1], [0.2, 0.6], 1.4 + 2.1),
        # K = 3: 0.2 + 0.6 + 0.9, and (0.8 + 0.4 + 0.9)
        ([0, 0, 1], [0.2, 0.6, 0.9], 1.7 + 2.1),
        # no Yes: K = 3 too, but the last verdict is wrong
        ([0, 0, 0], [0.2, 0.6, 0.9], 1.7 + 1.3),
        # pictures drawn after the first Yes do not count
        ([1, 0, 1], [0.2, 0.6, 0.9], 0.6 + 0.6),
        # a perfect painter that knows it: 3 and 3, whatever K
        ([1], [1.0], 6.0),
        ([0, 1], [0.0, 1.0], 2.0 + 3.0),
    ],
)
def test_trajectory_reward_by_hand(verdicts, rewards, expected):
    assert trajectory_reward(rewards, verdicts, 3) == pytest.approx(expected)


def shot(verdict, seed=0, reason=(40, 41), logp=-1.0):
    """A hand-made round; its tokens' log-probabilities count down from logp."""
    rng = np.random.default_rng(seed)
    ids = np.array([YES if verdict else NO, *reason], np.int32)
    picture = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    codes = rng.integers(0, 16, I).astype(np.int32)
    return Round(
        codes,
        picture,
        verdict,
        0.5,
        "",
        ids,
        (logp - np.arange(I)).astype(np.float32),
        (logp - 0.5 - np.arange(len(ids))).astype(np.float32),
        codes,
    )


def made(*verdicts, **settings):
    return Trajectory("two red circles", 0, [shot(v, seed=i, **settings) for i, v in enumerate(verdicts)])


@pytest.mark.parametrize(
    "kind, final",
    [
        # the final picture: the first one after a Yes, else the second
        ("released/own_prompt", [0.9, 0.6, 0.3, 1.0]),
        ("released/regen_prompt", [0.9, 0.6, 0.3, 1.0]),
        # always the second
        ("released/always_second", [0.1, 0.6, 0.4, 1.0]),
    ],
)
def test_released_credit_by_hand(kind, final):
    trajectories = [made(True, False), made(False, False), made(True, True), made(False, True)]
    rewards = [[0.9, 0.1], [0.2, 0.6], [0.3, 0.4], [0.0, 1.0]]
    got = credit(kind, trajectories, rewards, 2, 2)
    np.testing.assert_allclose(got.first, grpo([[0.9, 0.2], [0.3, 0.0]]).reshape(-1), atol=1e-6)
    # 1 - |reward - verdict| of the first picture
    np.testing.assert_allclose(got.text, grpo([[0.9, 0.8], [0.3, 1.0]]).reshape(-1), atol=1e-6)
    np.testing.assert_allclose(got.final, grpo(np.reshape(final, (2, 2))).reshape(-1), atol=1e-6)
    if kind != "released/always_second":  # nothing is drawn after a Yes: the same
        short = [until_yes(t) for t in trajectories]
        again = credit(kind, short, [r[: len(t.rounds)] for r, t in zip(rewards, short, strict=True)], 2, 2)
        np.testing.assert_array_equal(again.final, got.final)


def test_trajectory_credit_is_one_advantage():
    trajectories = [made(True), made(False, True), made(False, False, True), made(False, False, False)]
    rewards = [[0.2], [0.2, 0.6], [0.2, 0.6, 0.9], [0.2, 0.6, 0.9]]
    got = credit("trajectory", trajectories, rewards, 4, 3)
    np.testing.assert_allclose(got.first, grpo([1.2, 3.5, 3.8, 3.0]), atol=1e-6)
    for other in got[1:]:
        np.testing.assert_array_equal(got.first, other)
    with pytest.raises(ValueError, match="'paper' is none of"):
        credit("paper", trajectories, rewards, 4, 3)


def test_improvement_by_hand():
    trajectories = [made(True), made(False, True), made(False, False), made(True)]
    rewards = [[1.0], [0.2, 0.7], [0.4, 0.3], [0.3]]
    got = credit("improvement", trajectories, rewards, 4, 2)
    np.testing.assert_allclose(got.first, grpo([1.0, 0.2, 0.4, 0.3]), atol=1e-6)
    # 1 - |r - verdict|, its mean over two rounds twice, and a premature Yes
    text = [1.0, ((1 - 0.2) + 0.7) / 2, ((1 - 0.4) + (1 - 0.3)) / 2, 0.3 - 1]
    np.testing.assert_allclose(got.text, grpo(text), atol=1e-6)
    # better by 0.5 and worse by 0.1, compared with each other alone
    np.testing.assert_allclose(got.final[1:3, 0], grpo([0.5, -0.1]), atol=1e-6)
    assert np.isnan(got.final[[0, 3]]).all()


def test_improvement_over_three_rounds():
    """Each later picture against the one before it, among the trajectories that have it; the batch has them so."""
    trajectories = [made(False, False, True), made(False, False, False), made(False, True), made(True)]
    rewards = [[0.2, 0.9, 0.5], [0.1, 0.3, 0.8], [0.6, 0.6], [1.0]]
    segments = credits.segment_rewards("improvement", trajectories, rewards, 3)
    np.testing.assert_allclose(segments.final, [[0.7, -0.4], [0.2, 0.5], [0, np.nan], [np.nan, np.nan]], atol=1e-6)
    got = credit("improvement", trajectories, rewards, 4, 3)
    np.testing.assert_allclose(got.final[:3, 0], grpo([0.7, 0.2, 0.0]), atol=1e-6)
    np.testing.assert_allclose(got.final[:2, 1], grpo([-0.4, 0.5]), atol=1e-6)
    assert np.isnan(got.final[3]).all() and np.isnan(got.final[2, 1])
    assert sight.idle(got.final, 4) == 0 == sight.dropped(got.final, 4)


@pytest.mark.parametrize("estimator", credits.ESTIMATORS.values())
def test_missing_rewards_train_nothing(estimator):
    """A group with a failed reward has the statistics of the others; one with too few known rewards has none."""
    trajectories = [made(True) for _ in range(8)]
    rewards = [[0.9], [np.nan], [0.2], [0.4], [np.nan], [np.nan], [np.nan], [1.0]]
    got = credit("trajectory", trajectories, rewards, 4, 3, estimator).first
    whole = credit("trajectory", trajectories[:3], [rewards[i] for i in (0, 2, 3)], 3, 3, estimator).first
    np.testing.assert_allclose(got[[0, 2, 3]], whole, atol=1e-6)
    assert np.isnan(got[[1, 4, 5, 6, 7]]).all()
    assert np.isnan(credit("trajectory", trajectories, rewards, 4, 3, estimator, minimum=4).first).all()
    painter, judge = batches("trajectory", trajectories, Credited(got, got, got))
    for targets in (painter.codes, judge.text):
        assert (targets.weight.sum(1) > 0).tolist() == np.isfinite(got).tolist()
        assert np.isfinite(targets.advantage).all()
    # under released credit only the segments that needed the missing reward
    part = credit(
        "released/own_prompt", [made(False, True)] * 4, [[0.1, np.nan], [0.2, 0.5], [0.3, 0.7], [0.4, 0.6]], 4, 2
    )
    assert np.isfinite(part.first).all() and np.isfinite(part.text).all()
    assert np.isnan(part.final).tolist() == [True, False, False, False]


# Batches of hand-made trajectories


def batches(kind, trajectories, credited=None, rounds=None, reason_tokens=5):
    credited = credited or Credited(*(np.arange(len(trajectories), dtype=np.float32) + 10 * n for n in (1, 2, 3)))
    rounds = rounds or (2 if kind.startswith("released/") else 3)
    length = max(len(tokens.prompt_ids(processor().tokenizer, t.prompt)) for t in trajectories)
    shapes = layout(kind, MODEL, processor(), length, rounds, reason_tokens)
    return pg_batch(kind, trajectories, credited, processor(), shapes, SEES)


def live(targets, row):
    keep = targets.weight[row] > 0
    return {name: getattr(targets, name)[row][keep] for name in ("at", "ids", "group", "advantage", "old_logps")}


def real(batch, row):
    return batch.ids[row][batch.mask[row]].tolist()


def pieces():
    encode = functools.partial(processor().encode, bos=False)
    return tokens.prompt_ids(processor().tokenizer, "two red circles"), encode(tokens.THINK), encode(tokens.NEXT)


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
    painter, judge = batches("trajectory", [Trajectory("two red circles", 0, [cut, ended, last])])
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
    assert live(painter.codes, 0)["group"].tolist() == [FIRST] * I + [FINAL] * 2 * I
    assert len(live(painter.codes, 0)["ids"]) == 3 * I
    np.testing.assert_allclose(judge.pixels[0, 1], processor().for_understanding(ended.image))


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
    """Trajectories as introspect would have made them for this credit; see test_introspect for the equality."""
    if kind == "trajectory":
        return [until_yes(t) for t in drawn()]
    two = [Trajectory(t.prompt, t.sample, t.rounds[:2]) for t in drawn()]
    return two if kind == "released/always_second" else [until_yes(t) for t in two]


@pytest.mark.parametrize("kind", CREDITS)
def test_what_is_trained_is_what_was_drawn(kind):
    trajectories = sampled(kind)
    assert {len(t.rounds) for t in trajectories} >= ({2} if kind == "released/always_second" else {1, 2})
    # one compiled shape for all: the longest
    length = max(len(tokens.prompt_ids(processor().tokenizer, t.prompt)) for t in trajectories)
    shapes = layout("trajectory", MODEL, processor(), length, 3, SAMPLING.max_reason_tokens)
    credited = Credited(*np.random.default_rng(0).standard_normal((3, len(trajectories))).astype(np.float32))
    painter, judge = pg_batch(kind, trajectories, credited, processor(), shapes, SEES)
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
    assert credits.PER[kind.split("/")[0]] == ("trajectory" if kind == "trajectory" else "segment")


def test_the_identity_covers_three_rounds():
    assert {len(t.rounds) for t in sampled("trajectory")} == {1, 2, 3}


# The released layout


def released(kind, trajectories, rounds=2, reason_tokens=5):
    credited = Credited(*(np.arange(len(trajectories), dtype=np.float32) + 10 * n for n in (1, 2, 3)))
    length = max(len(tokens.prompt_ids(processor().tokenizer, t.prompt)) for t in trajectories)
    shapes = layout(kind, MODEL, processor(), length, rounds, reason_tokens)
    return credits.released_batches(kind, trajectories, credited, processor(), shapes, SEES)


def drawing(masks):
    return ["".join(".x"[int(keep)] for keep in row) for row in masks]


@pytest.mark.parametrize("kind", CREDITS[:3])
def test_released_layout_by_hand(kind):
    # prompts and reasons of different lengths; the long reason ended by itself
    prompt, think, onward = pieces()
    long = Trajectory("two red circles and a blue square", 0, [shot(False, 0, reason=(40, 41, 42, EOS)), shot(True, 1)])
    wide = tokens.prompt_ids(processor().tokenizer, long.prompt)
    padding, short = len(wide) - len(prompt), made(True, False)
    first, judge, final = released(kind, [short, long])
    assert (first.positions == np.arange(first.ids.shape[1])).all() and final.positions is not None
    # the first picture: padding is masked
    assert drawing(first.mask) == ["." * padding + "x" * (len(prompt) + I), "x" * (len(wide) + I)]
    assert live(first.codes, 1)["ids"].tolist() == long.rounds[0].codes.tolist()
    assert live(first.codes, 1)["advantage"].tolist() == [11] * I
    # the judge: the prompt's padding is attended, as PAD; EOS is not there
    words = [*short.rounds[0].reason_ids], [*long.rounds[0].reason_ids[:-1]]
    assert real(judge, 0) == [PAD] * padding + prompt + [0] * SEES + think + words[0]
    assert real(judge, 1) == wide + [0] * SEES + think + words[1]
    assert live(judge.text, 1)["ids"].tolist() == words[1]
    assert judge.text.verdict is None
    # the final picture
    between = think + words[0], onward
    again = [PAD] * padding + prompt + short.rounds[0].context_codes.tolist()
    expected = {
        "released/own_prompt": (prompt, short.rounds[0].codes),
        "released/regen_prompt": (again + between[0] + between[1], short.rounds[0].codes),
        "released/always_second": (again + between[0] + between[1], short.rounds[1].codes),
    }
    context, codes = expected[kind]
    assert real(final, 0) == context + codes.tolist()
    assert live(final.codes, 0)["ids"].tolist() == codes.tolist()
    assert real(final, 1) == (
        wide + long.rounds[0].context_codes.tolist() + think + words[1] + onward + long.rounds[1].codes.tolist()
    )
    # holes: the longest reason has five tokens, its EOS among them; the other three
    holes = [".." if kind != "released/own_prompt" else "", "."]
    for row, hole in zip(drawing(final.mask), holes, strict=True):
        assert row.strip(".") == "x" * (len(row.strip(".")) - len(hole) - len(onward) - I) + hole + "x" * (
            len(onward) + I
        )
    for batch in (first.codes, judge.text, final.codes):
        assert np.isnan(batch.old_logps[batch.weight > 0]).all()


def test_released_drawing_is_scored_as_it_was_drawn():
    # At a temperature that equals the guidance, the released density is the one sampled from; words are not, there.
    sampling = Sampling(cfg_weight=3.0, temperature=3.0, text_top_k=2, max_reason_tokens=5)
    prompts = ["two red circles", "a photo of a blue square to the left of a green triangle"]
    trajectories = introspect(MODEL, params(), processor(), prompts, 2, 2, sampling, released=True)
    assert len({len(t.rounds[0].reason_ids) for t in trajectories}) > 1  # there are holes
    assert any((t.rounds[0].context_codes != t.rounds[0].codes).any() for t in trajectories)
    first, judge, final = released("released/always_second", trajectories)

    @jax.jit
    def logps(params, policy):
        outputs = [token_logps(MODEL, params, batch, sampling, policy=policy) for batch in (first, judge, final)]
        return outputs[0]["codes"], outputs[1]["text"], outputs[2]["codes"]

    got = logps(params(), params())
    for n, turn in ((0, 0), (2, 1)):
        np.testing.assert_allclose(got[n], [t.rounds[turn].code_logps for t in trajectories], atol=1e-4)
    # contexts are embedded by the policy, completions by the model that is scored
    other = logps(params(1), params())
    assert all(np.abs(np.asarray(a - b)).max() > 1e-2 for a, b in zip(got, other, strict=True))
    moved = {**params(), "aligner": params(1)["aligner"]}
    np.testing.assert_allclose(logps(moved, params())[1], got[1], atol=1e-5)
    assert np.abs(np.asarray(logps(params(), moved)[1] - got[1])).max() > 1e-2
    # and carry no gradient
    gradient = jax.jit(jax.grad(lambda p: sum(x.sum() for x in logps(p, p))))(params())
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient["aligner"]))
    table = np.abs(np.asarray(gradient["llama"]["embed_tokens"])).sum(-1)
    words = {int(i) for t in trajectories for i in t.rounds[0].reason_ids if i != EOS}
    assert set(np.flatnonzero(table)) <= words and table.any()

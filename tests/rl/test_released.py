"""The released layout: its three sequences by hand, and its densities against its own way of drawing."""

import jax
import numpy as np
import pytest
from policy_batches import live, pieces, real
from tiny import EOS, MODEL, NO, PAD, SEES, YES, I, grammar, params, processor
from trajectories import made, rollout_of, shot

from janus_jax.rl import released
from janus_jax.rl.batches import layout, with_credit
from janus_jax.rl.credit import CREDITS
from janus_jax.sampling.density import Sampling
from janus_jax.sampling.introspect import introspect
from janus_jax.sampling.rollout import Trajectory
from janus_jax.sequences import tokens
from janus_jax.sequences.request import Request

pytestmark = pytest.mark.usefixtures("quick_compiles")

RELEASED = [name for name in CREDITS if name.startswith("released/")]


def batches_of(kind, trajectories, rounds=2, reason_tokens=5):
    credited = np.arange(len(trajectories), dtype=np.float32)[:, None] + np.float32([10, 20, 30])
    length = max(len(grammar().prompt(t.request)[0]) for t in trajectories)
    shapes = layout(CREDITS[kind], grammar(), length, rounds, reason_tokens)
    rollout = rollout_of(trajectories, rounds, reason_tokens)
    return with_credit(released.make(CREDITS[kind], rollout, grammar(), shapes, side=16), credited)


def drawing(masks):
    return ["".join(".x"[int(keep)] for keep in row) for row in masks]


@pytest.mark.parametrize("kind", RELEASED)
def test_released_layout_by_hand(kind):
    # prompts and reasons of different lengths; the long reason ended by itself
    prompt, think, onward = pieces()
    long = Trajectory(
        Request("two red circles and a blue square"), 0, [shot(False, 0, reason=(40, 41, 42, EOS)), shot(True, 1)]
    )
    wide = tokens.prompt_ids(processor().tokenizer, long.prompt)
    padding, short = len(wide) - len(prompt), made(True, False)
    first, judge, final = batches_of(kind, [short, long])
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
    first, judge, final = batches_of("released/always_second", trajectories)

    batches, forward = (first, judge, final), released.make_forward(MODEL, sampling, (YES, NO))

    @jax.jit
    def logps(params, policy):
        outputs = forward(params, batches, policy)
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

"""Losses by hand, and the identities that gradient accumulation and policy gradients rest on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from janus_jax.rl import advantages
from janus_jax.sequences.batch import DESCRIBE, DRAW, EDIT, GROUPS, REASON, REDRAW, VERDICT
from janus_jax.training import losses


def f32(x):
    return jnp.asarray(x, jnp.float32)


def i32(x):
    return jnp.asarray(x, jnp.int32)


def close(a, b, atol=1e-6):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=atol, rtol=0)


# Stage 1


def test_shares():
    close(losses.sft_shares(10, 10, 15), [10 / 35, 8 / 35, 2 / 35, 15 / 35, 0])
    close(losses.sft_shares(0.2, 0.3, 0.3, 0.2, verdict_share=0.5), [0.2, 0.15, 0.15, 0.3, 0.2])
    close(losses.sft_shares(1, 1, 1, 0, 1), [0.25, 0.2, 0.05, 0.25, 0, 0.25])
    assert GROUPS == ("draw", "verdict", "reason", "redraw", "describe", "edit")
    assert (DRAW, VERDICT, REASON, REDRAW, DESCRIBE, EDIT) == (0, 1, 2, 3, 4, 5)


def test_verdict_and_reason_are_split_0_8_to_0_2():
    # Two judged pictures with reasons of one and three tokens, and a place that is not used.
    weight = f32([[1, 1, 0, 0], [1, 1, 1, 1]])
    group = i32([[VERDICT, REASON, DRAW, DRAW], [VERDICT, REASON, REASON, REASON]])
    logps = f32([[-1.0, -2.0, -9.0, -9.0], [-3.0, -4.0, -5.0, -7.0]])
    (new,) = losses.sft_weights([(weight, group)], losses.sft_shares(0, 1, 0))
    close(new, [[0.4, 0.05, 0, 0], [0.4, 0.05, 0.05, 0.05]])
    # 0.8 mean(1, 3) + 0.2 mean(2, 4, 5, 7)
    close(losses.sft_loss(logps, new), 0.8 * 2 + 0.2 * 4.5)


def test_shares_of_tasks_and_a_group_that_is_not_there():
    codes = f32([[1, 1], [1, 0]]), i32([[DRAW, DRAW], [REDRAW, REDRAW]])
    words = f32([[0, 0, 0], [1, 1, 1]]), i32([[0, 0, 0], [VERDICT, REASON, REASON]])
    shares = losses.sft_shares(2, 5, 3)
    codes, words = losses.sft_weights([codes, words], shares)
    close(codes, [[0.1, 0.1], [0.3, 0]])
    close(words, [[0, 0, 0], [0.4, 0.05, 0.05]])
    close(codes.sum() + words.sum(), 1.0)
    # Nobody redraws: that share is lost, the others do not grow, nothing is divided by zero.
    (codes,) = losses.sft_weights([(f32([[1, 1]]), i32([[DRAW, DRAW]]))], shares)
    close(codes, [[0.1, 0.1]])
    (nothing,) = losses.sft_weights([(f32([[0, 0]]), i32([[DRAW, DRAW]]))], shares)
    close(nothing, [[0, 0]])


def test_normalised_weights_make_the_parts_sum_to_the_whole():
    rng = np.random.default_rng(0)
    # uneven on purpose: the first rows hold nearly all tokens
    weight = f32(rng.random((8, 6)) < np.array([1, 1, 0.9, 0.9, 0.2, 0.1, 0.1, 0.05])[:, None])
    group = i32(rng.integers(0, 4, (8, 6)))
    x = f32(rng.standard_normal((8, 6)))
    (new,) = losses.sft_weights([(weight, group)], losses.sft_shares(10, 10, 15))

    def loss(x, w):
        return losses.sft_loss(-jnp.square(x), w)

    whole, grad = jax.value_and_grad(loss)(x, new)
    cut = [jax.value_and_grad(loss)(x[i : i + 2], new[i : i + 2]) for i in range(0, 8, 2)]
    close(sum(value for value, _ in cut), whole)
    close(np.concatenate([g for _, g in cut]), grad)
    # The mean of means is something else; were it not, this test could not fail.
    local = [losses.sft_weights([(weight[i : i + 2], group[i : i + 2])], [0.3] * 4)[0] for i in range(0, 8, 2)]
    assert abs(sum(loss(x[2 * i : 2 * i + 2], w) / 4 for i, w in enumerate(local)) - whole) > 0.05


def test_sft_loss_ignores_unused_places():
    weight = f32([[0.5, 0.0]])
    for garbage in (np.nan, np.inf, -np.inf):
        value, grad = jax.value_and_grad(losses.sft_loss)(f32([[-2.0, garbage]]), weight)
        close(value, 1.0)
        close(grad, [[-0.5, 0.0]])


# Stage 2: weights

# Two trajectories. Codes: the first has two tokens of segment 0 and one of segment 2, the second one of segment 0.
# Words (segment 1): one and three tokens.
CODES = [[1, 1, 1], [1, 0, 0]], [[0, 0, 2], [0, 0, 0]]
WORDS = [[1, 0, 0], [1, 1, 1]], [[1, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize(
    "per, codes, words",
    [
        # three segments; segment 0 and 1 are in two trajectories each, segment 2 in one
        (
            "segment",
            [[1 / 12, 1 / 12, 1 / 3], [1 / 6, 0, 0]],
            [[1 / 6, 0, 0], [1 / 18, 1 / 18, 1 / 18]],
        ),
        # four tokens each
        ("trajectory", [[1 / 8, 1 / 8, 1 / 8], [1 / 8, 0, 0]], [[1 / 8, 0, 0], [1 / 8, 1 / 8, 1 / 8]]),
        ("token", [[1 / 8, 1 / 8, 1 / 8], [1 / 8, 0, 0]], [[1 / 8, 0, 0], [1 / 8, 1 / 8, 1 / 8]]),
    ],
)
def test_pg_weights_by_hand(per, codes, words):
    targets = [(f32(w), i32(g)) for w, g in (CODES, WORDS)]
    got = losses.pg_weights(targets, 3, per)
    close(got[0], codes)
    close(got[1], words)
    close(got[0].sum() + got[1].sum(), 1.0)


def test_pg_weights_of_unequal_trajectories():
    # five tokens and one: here "trajectory" and "token" differ; the third trajectory has nothing to train
    targets = [(f32([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]), i32(np.zeros((3, 5))))]
    (trajectory,) = losses.pg_weights(targets, 3, "trajectory")
    close(trajectory, [[0.1] * 5, [0.5, 0, 0, 0, 0], [0] * 5])
    (token,) = losses.pg_weights(targets, 3, "token")
    close(token, [[1 / 6] * 5, [1 / 6, 0, 0, 0, 0], [0] * 5])
    (segment,) = losses.pg_weights(targets, 3, "segment")  # one segment that is there: its share is the whole
    close(segment, trajectory)
    with pytest.raises(ValueError, match="'batch' is none of"):
        losses.pg_weights(targets, 3, "batch")


# Stage 2: the loss


def test_k3_is_never_negative_and_flat_at_the_reference():
    ref = f32([-0.1, -1.0, -5.0])
    assert (np.asarray(losses.k3_kl(ref, ref)) == 0).all()
    assert (np.asarray(jax.grad(lambda x: losses.k3_kl(x, ref).sum())(ref)) == 0).all()
    x = f32(np.linspace(-8, 0, 50))
    assert (np.asarray(losses.k3_kl(x, f32(-2.0)[None])) >= 0).all()
    # d = 1: e - 2, and its derivative 1 - e
    close(losses.k3_kl(f32(-2.0), f32(-1.0)), np.e - 2)
    close(jax.grad(losses.k3_kl)(f32(-2.0), f32(-1.0)), 1 - np.e)


def pg(ratio, advantage, weight, ref=None, beta=0.0):
    """pg_loss, its metrics and its gradient by the log-probabilities, for ratios per token."""
    logps = f32(np.full(np.shape(ratio), -1.0))
    old = logps - jnp.log(f32(ratio))
    ref = logps if ref is None else f32(ref)

    def loss(logps):
        return losses.pg_loss(logps, old, ref, f32(advantage), f32(weight), beta=beta, clip_low=0.2, clip_high=0.3)

    (value, metrics), grad = jax.value_and_grad(loss, has_aux=True)(logps)
    return value, metrics, grad


@pytest.mark.parametrize(
    "ratio, advantage, loss, slope, clipped",
    [
        # The gradient by logp is -A ratio where the clip does not act, and 0 where it does.
        (1.0, 2.0, -2.0, -2.0, 0),
        (1.25, 2.0, -2.5, -2.5, 0),  # inside (0.8, 1.3)
        (1.5, 2.0, -2.6, 0.0, 1),  # above, and better already: clipped at 1.3
        (0.5, 2.0, -1.0, -1.0, 0),  # below, and it shall grow: not clipped
        (0.5, -2.0, 1.6, 0.0, 1),  # below, and worse already: clipped at 0.8
        (1.5, -2.0, 3.0, 3.0, 0),  # above, and it shall shrink: not clipped
        (1.5, 0.0, 0.0, 0.0, 0),
    ],
)
def test_the_clip_acts_on_each_side(ratio, advantage, loss, slope, clipped):
    value, metrics, grad = pg([[ratio]], [[advantage]], [[1.0]])
    close(value, loss)
    close(grad, [[slope]])
    close(metrics["clip_fraction"], clipped)
    close(metrics["ratio"], ratio)
    close(metrics["policy_loss"], loss)


def test_a_token_that_cannot_be_drawn_any_more():
    """Truncation may cut after an update what was drawn before it: it counts no more, and what is not finite for
    another reason is not hidden."""
    f32 = lambda *values: jnp.asarray(values, jnp.float32)[None]  # noqa: E731
    rest = {"beta": 0.1, "clip_low": 0.2, "clip_high": 0.2}

    def loss(logps):
        return losses.pg_loss(logps, f32(-1, -1), f32(-1.5, -1.5), f32(2, -3), f32(0.25, 0.75), **rest)[0]

    lost = f32(-0.9, -jnp.inf)
    alone = losses.pg_loss(f32(-0.9), f32(-1), f32(-1.5), f32(2), f32(0.25), **rest)[0]
    assert loss(lost) == alone and np.isfinite(alone)
    gradient = jax.grad(loss)(lost)
    assert gradient[0, 1] == 0 and np.isfinite(gradient).all() and gradient[0, 0] != 0
    assert np.isnan(loss(f32(-0.9, jnp.nan)))


def test_pg_loss_by_hand():
    # weights 0.25, 0.75; ratios 1 and 2 (clipped to 1.3); d = ref - logp = 1 and 0
    value, metrics, grad = pg([[1.0, 2.0]], [[-1.0, 2.0]], [[0.25, 0.75]], ref=[[0.0, -1.0]], beta=0.1)
    kl = np.e - 2
    close(metrics["policy_loss"], 0.25 * 1 - 0.75 * 2.6)
    close(metrics["kl"], 0.25 * kl)
    close(value, 0.25 - 1.95 + 0.1 * 0.25 * kl)
    close(metrics["clip_fraction"], 0.75)
    close(metrics["ratio"], 0.25 + 1.5)
    close(grad, [[0.25 * (1.0 + 0.1 * (1 - np.e)), 0.0]])


def test_on_policy_the_ratio_is_one_and_the_gradient_is_reinforce():
    rng = np.random.default_rng(0)
    advantage, weight = rng.standard_normal((3, 4)), rng.random((3, 4))
    value, metrics, grad = pg(np.ones((3, 4)), advantage, weight)
    close(metrics["ratio"], weight.sum(), 1e-5)
    close(value, -(advantage * weight).sum(), 1e-5)
    close(grad, -advantage * weight)
    assert metrics["clip_fraction"] == 0 and metrics["kl"] == 0


def test_dapo_with_a_symmetric_clip_is_grpo_on_full_groups():
    """Trajectories of one length: the mean over all tokens is the mean over trajectories of their own means; and where
    both sides of the clip are equal there is but one loss."""
    rng = np.random.default_rng(0)
    logps, old, ref = (f32(rng.normal(-1, 0.3, (4, 6))) for _ in range(3))
    advantage = f32(np.repeat(advantages.grpo([0.0, 1.0, 1.0, 0.5])[:, None], 6, axis=1))
    ones, group = f32(np.ones((4, 6))), jnp.zeros((4, 6), jnp.int32)

    def loss(per, low, high):
        (weight,) = losses.pg_weights([(ones, group)], 1, per)
        return losses.pg_loss(logps, old, ref, advantage, weight, beta=0.04, clip_low=low, clip_high=high)[0]

    close(loss("token", 0.2, 0.2), loss("trajectory", 0.2, 0.2), 1e-6)
    assert abs(loss("token", 0.2, 0.28) - loss("trajectory", 0.2, 0.2)) > 1e-4  # what DAPO changes


@pytest.mark.parametrize("name", ["logps", "old_logps", "ref_logps", "advantage"])
@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 1e30])
def test_garbage_in_unused_places_does_not_leak(name, garbage):
    fields = {
        "logps": [[-1.0, -2.0]],
        "old_logps": [[-1.1, -2.0]],
        "ref_logps": [[-1.5, -2.0]],
        "advantage": [[2.0, 1.0]],
    }
    weight = f32([[0.5, 0.0]])

    def run(fields):
        def loss(logps):
            rest = {key: f32(value) for key, value in fields.items() if key != "logps"}
            return losses.pg_loss(logps, weight=weight, beta=0.1, clip_low=0.2, clip_high=0.2, **rest)

        (value, metrics), grad = jax.value_and_grad(loss, has_aux=True)(f32(fields["logps"]))
        return [value, grad, *metrics.values()]

    clean = run(fields)
    dirty = run({**fields, name: [[fields[name][0][0], garbage]]})
    for a, b in zip(clean, dirty, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.asarray(clean[1])[0, 0] != 0

"""The sampling density by hand: guidance, truncation, the verdict, entropy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from janus_jax.sampling.density import Sampling, code_logps, entropy, guide, text_logps, truncate

NO = -np.inf


def logs(*probs):
    """Logits whose softmax is `probs`, shifted so that nobody can mistake them for log-probabilities."""
    with np.errstate(divide="ignore"):
        return jnp.asarray(np.log(np.asarray(probs)) + 3.0, jnp.float32)


def probs(logps):
    return np.exp(np.asarray(logps))


def close(a, b, atol=1e-6):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=atol, rtol=0)


def test_guide_by_hand():
    cond, uncond = jnp.array([1.0, 2.0, -1.0]), jnp.array([0.0, 3.0, -1.0])
    close(guide(cond, uncond, 5.0), [5.0, -2.0, -1.0])
    close(guide(cond, uncond, 1.0), cond)
    close(guide(cond, uncond, 0.0), uncond)


@pytest.mark.parametrize(
    "logits, top_k, top_p, expected",
    [
        ([1.0, 4.0, 2.0, 3.0], 2, None, [NO, 4.0, NO, 3.0]),
        ([1.0, 4.0, 2.0, 3.0], 1, None, [NO, 4.0, NO, NO]),
        ([1.0, 4.0, 2.0, 3.0], 4, None, [1.0, 4.0, 2.0, 3.0]),
        ([1.0, 4.0, 2.0, 3.0], 9, None, [1.0, 4.0, 2.0, 3.0]),  # more than there are
        ([2.0, 4.0, 2.0, 1.0], 2, None, [2.0, 4.0, 2.0, NO]),  # a tie at the edge stays
    ],
)
def test_top_k_by_hand(logits, top_k, top_p, expected):
    np.testing.assert_array_equal(truncate(jnp.array(logits), top_k, top_p), expected)


@pytest.mark.parametrize(
    "top_k, top_p, kept",
    [
        # of the distribution 0.1, 0.5, 0.15, 0.25
        (None, 0.01, [1]),  # the most likely token always stays
        (None, 0.49, [1]),
        (None, 0.51, [1, 3]),
        (None, 0.74, [1, 3]),
        (None, 0.76, [1, 2, 3]),
        (None, 0.95, [0, 1, 2, 3]),
        (None, 1.0, [0, 1, 2, 3]),
        # the nucleus is that of the renormalised top k: 0.5/0.75 = 0.667
        (2, 0.6, [1]),
        (2, 0.7, [1, 3]),
        (3, 0.8, [1, 3]),  # 0.833 of 0.9; without top-k 0.8 needs three
        (None, 0.8, [1, 2, 3]),
    ],
)
def test_top_p_by_hand(top_k, top_p, kept):
    p = np.array([0.1, 0.5, 0.15, 0.25])
    logits = jnp.stack([logs(*p), logs(*p[::-1])])  # rows are truncated each for itself
    got = np.isfinite(truncate(logits, top_k, top_p))
    expected = np.isin(np.arange(4), kept)
    np.testing.assert_array_equal(got, [expected, expected[::-1]])
    # what stays keeps its logit
    np.testing.assert_array_equal(np.asarray(truncate(logits, top_k, top_p))[got], np.asarray(logits)[got])


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.3),
        Sampling(image_top_k=3, text_top_k=3),
        Sampling(image_top_p=0.4, text_top_p=0.4, temperature=2.0),
        Sampling(image_top_k=5, image_top_p=0.7, text_top_k=5, text_top_p=0.7),
    ],
)
def test_log_probabilities_sum_to_one(sampling):
    rng = np.random.default_rng(0)
    cond, uncond = jnp.asarray(rng.standard_normal((2, 4, 3, 11)), jnp.float32)
    verdict = jnp.asarray(rng.random((4, 3)) < 0.5)
    for logps in (code_logps(cond, uncond, sampling), text_logps(cond, sampling, verdict, (2, 7))):
        assert logps.shape == (4, 3, 11) and logps.dtype == jnp.float32
        close(probs(logps).sum(-1), np.ones((4, 3)), 1e-5)


def test_code_density_by_hand():
    # guidance, then temperature, then top-k: the order matters to every number here
    cond, uncond = jnp.array([0.0, 1.0, 2.0, 2.5]), jnp.array([0.0, 0.0, 1.0, 3.0])
    sampling = Sampling(cfg_weight=3.0, temperature=2.0, image_top_k=2)
    guided = np.array([0.0, 3.0, 4.0, 1.5]) / 2
    e = np.exp(guided)
    close(probs(code_logps(cond, uncond, sampling)), [0, e[1] / (e[1] + e[2]), e[2] / (e[1] + e[2]), 0])
    # without an unconditional row there is no guidance, whatever the weight
    e = np.exp(np.asarray(cond) / 2)
    close(probs(code_logps(cond, None, sampling)), [0, 0, e[2] / (e[2] + e[3]), e[3] / (e[2] + e[3])])


def test_top_k_1_is_greedy():
    rng = np.random.default_rng(1)
    logits = jnp.asarray(rng.standard_normal((5, 9)), jnp.float32)
    sampling = Sampling(image_top_k=1, text_top_k=1, temperature=7.0)
    for logps in (code_logps(logits, None, sampling), text_logps(logits, sampling)):
        np.testing.assert_array_equal(probs(logps), np.eye(9)[np.asarray(logits).argmax(-1)])
        close(entropy(logps), np.zeros(5))


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(image_top_k=4, temperature=2.0),
        Sampling(image_top_k=1, temperature=0.7),
        Sampling(image_top_p=0.7, temperature=2.0),
        Sampling(image_top_k=4, image_top_p=0.999999, temperature=2.0),
    ],
)
def test_compiling_does_not_move_the_edge(sampling):
    # The guided logits are computed twice by the unoptimised program, once with a fused multiply-add: a cut exactly
    # at the k-th of them lost that token in one row of a hundred.
    rng = np.random.default_rng(0)
    cond, uncond = jnp.asarray(3 * rng.standard_normal((2, 1, 200, 16)), jnp.float32)
    expected = code_logps(cond, uncond, sampling)
    try:
        jax.config.update("jax_disable_most_optimizations", True)
        got = jax.jit(code_logps, static_argnums=2)(cond, uncond, sampling)
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(expected))
    assert (np.isfinite(got).sum(-1) <= (sampling.image_top_k or 16)).all()
    close(probs(got), probs(expected), 1e-5)


def test_truncation_of_what_is_truncated_already():
    logits = jnp.array([[1.0, NO, 3.0, NO], [NO, NO, 2.0, NO]])
    for top_k, top_p in ((1, None), (3, None), (None, 0.99), (None, 0.9999999), (2, 0.9999999)):
        kept = np.isfinite(truncate(logits, top_k, top_p))
        np.testing.assert_array_equal(kept, [[top_k != 1, False, True, False], [False, False, True, False]])


def test_the_verdict_is_yes_or_no():
    logits = logs(0.5, 0.1, 0.3, 0.06, 0.04)
    both = jnp.stack([logits, logits])
    verdict = jnp.array([True, False])
    close(probs(text_logps(both, Sampling(), verdict, (3, 4))), [[0, 0, 0, 0.6, 0.4], [0.5, 0.1, 0.3, 0.06, 0.04]])
    # truncation acts among the two: were it first, the most likely words would have taken both out
    for sampling, expected in (
        (Sampling(text_top_k=2), [[0, 0, 0, 0.6, 0.4], [5 / 8, 0, 3 / 8, 0, 0]]),
        (Sampling(text_top_k=1), [[0, 0, 0, 1, 0], [1, 0, 0, 0, 0]]),
        (Sampling(text_top_p=0.55), [[0, 0, 0, 1, 0], [5 / 8, 0, 3 / 8, 0, 0]]),
    ):
        close(probs(text_logps(both, sampling, verdict, (3, 4))), expected)
    # temperature applies to the verdict, too: 0.6, 0.4 squared
    logps = probs(text_logps(both, Sampling(temperature=0.5), jnp.array([True, True]), (4, 3)))
    close(logps[0], [0, 0, 0, 0.36 / 0.52, 0.16 / 0.52])
    # no verdict anywhere: plain softmax, and only the text's truncation counts
    close(probs(text_logps(logits, Sampling(image_top_k=1))), [0.5, 0.1, 0.3, 0.06, 0.04])


def test_entropy_by_hand():
    half = text_logps(logs(0.5, 0.5, 0.0, 0.0), Sampling())
    assert np.isneginf(half[2])
    close(entropy(half), math.log(2))
    close(entropy(text_logps(jnp.zeros((3, 8)), Sampling())), np.full(3, math.log(8)))
    close(entropy(code_logps(logs(0.7, 0.2, 0.1), None, Sampling(image_top_k=1))), 0.0)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"temperature": 0.0}, "temperature must be positive, not 0.0"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"image_top_k": 0}, "image_top_k must be at least 1"),
        ({"text_top_k": -3}, "text_top_k must be at least 1"),
        ({"image_top_p": 0.0}, r"image_top_p must lie in \(0, 1\]"),
        ({"text_top_p": 1.5}, r"text_top_p must lie in \(0, 1\]"),
        ({"max_reason_tokens": 0}, "max_reason_tokens must be at least 1"),
    ],
)
def test_sampling_refuses(settings, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**settings)

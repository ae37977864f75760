"""The log-probabilities of a batch against the model's own methods."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import MODEL, NO, PAD, SEES, YES, I, codes, params, picture, processor, run, score

from janus_jax.sampling import density
from janus_jax.sampling.density import Sampling
from janus_jax.sequences import images, tokens
from janus_jax.sequences.row import Row, collate
from janus_jax.training import logps
from janus_jax.training.logps import token_logps

pytestmark = pytest.mark.usefixtures("quick_compiles")


def close(a, b, atol=2e-5):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=atol, rtol=0)


@functools.cache
def prompt():
    return tuple(tokens.prompt_ids(processor().tokenizer, "two red circles"))


def wordless(ids):
    """What guidance leaves of a prompt."""
    return [ids[0], *[PAD] * (len(ids) - 2), ids[-1]]


def painter(text=None):
    """A picture, a reason, a second picture."""
    row = Row()
    ids = list(text or prompt())
    row.add_text(ids, uncond=wordless(ids))
    row.add_codes(codes(0), group=0)
    row.add_text([7, 50, 60, 6])
    row.add_codes(codes(1), group=2)
    return row


def judge():
    """Two pictures; a verdict and a reason about each."""
    row = Row()
    row.add_text(list(prompt()))
    row.add_seen(picture(0), SEES)
    row.add_text([7, 50])
    row.add_text([12, 70, 2], [1, 1, 1], verdict=[True, False, False])
    row.add_text([60, 6])
    row.add_seen(picture(1), SEES)
    row.add_text([7, 50])
    row.add_text([11, 71, 72, 2], [1, 1, 1, 1], verdict=[True, False, False, False])
    return row


def test_text_log_probabilities_by_hand():
    batch = collate([judge()], len(judge()), 3, text_targets=7, pictures=2, fields=("verdict",))
    got = score(params(), batch)
    text = lambda ids: run("embed_text", params(), jnp.asarray([ids], jnp.int32))  # noqa: E731
    seen = run("understand", params(), jnp.stack([picture(0), picture(1)]))
    between, last = text([7, 50, 12, 70, 2, 60, 6]), text([7, 50, 11, 71, 72, 2])
    embeds = jnp.concatenate([text(list(prompt())), seen[:1], between, seen[1:], last], axis=1)
    hidden = run("decode", params(), embeds, jnp.ones(embeds.shape[:2], bool))
    logits = np.asarray(run("text_logits", params(), hidden))[0]
    n = len(prompt()) + SEES
    expected = []
    for place, ids in ((n + 1, [12, 70, 2]), (n + 7 + SEES + 1, [11, 71, 72, 2])):
        for t, token in enumerate(ids):
            row = logits[place + t]
            allowed = row[[11, 12]] if t == 0 else row  # the verdict is one of two
            expected.append(row[token] - np.log(np.exp(allowed).sum()))
    close(got["text"][0], expected)
    assert set(got) == {"text", "text_entropy"}
    # the verdict's entropy is that of two outcomes
    p = np.exp(expected[0])
    close(got["text_entropy"][0, 0], -p * np.log(p) - (1 - p) * np.log(1 - p))
    # unrestricted: the whole vocabulary
    free = score(params(), batch._replace(text=batch.text._replace(verdict=None)))["text"][0]
    row = logits[n + 1]
    close(free[0], row[12] - np.log(np.exp(row).sum()))
    close(free[1:3], expected[1:3])
    # the pictures' order matters
    swapped = score(params(), batch._replace(pixels=batch.pixels[:, ::-1]))["text"]
    assert np.abs(swapped - got["text"]).max() > 1e-2


def test_grey_levels_are_normalised_as_the_processor_does_it():
    levels = np.random.default_rng(3).integers(0, 256, (2, 16, 16, 3), np.uint8)
    scored = []
    for pictures, as_levels in ((levels, True), (images.NORMALISED[levels], False)):
        row = judge()
        row.pictures = list(pictures)
        scored.append(score(params(), collate([row], 60, 3, 7, pictures=2, fields=("verdict",), levels=as_levels)))
    close(scored[0]["text"], scored[1]["text"])


def hidden_of(ids_of_text):
    """Hidden states of painter() by the model's methods, for the ids that stand in the prompt's place."""
    text = lambda ids: run("embed_text", params(), jnp.asarray([ids], jnp.int32))  # noqa: E731
    drawn = [run("embed_codes", params(), jnp.asarray([codes(i)], jnp.int32)) for i in range(2)]
    embeds = jnp.concatenate([text(list(ids_of_text)), drawn[0], text([7, 50, 60, 6]), drawn[1]], axis=1)
    return run("decode", params(), embeds, jnp.ones(embeds.shape[:2], bool))


def test_guided_code_log_probabilities_are_those_of_two_separate_runs():
    row = painter()
    batch = collate([row], len(row), 3, code_targets=2 * I, guided=True)
    got = score(params(), batch)
    unconditional = wordless(prompt())
    cond, uncond = (run("code_logits", params(), hidden_of(ids))[0] for ids in (prompt(), unconditional))
    n = len(prompt())
    places = np.r_[n - 1 : n - 1 + I, n + I + 3 : n + I + 3 + I]
    target = np.array(codes(0) + codes(1))
    logits = np.asarray(density.guide(cond, uncond, 5.0))[places].astype(np.float64)
    expected = logits[np.arange(2 * I), target] - np.log(np.exp(logits).sum(-1))
    close(got["codes"][0], expected, 1e-4)
    assert set(got) == {"codes", "codes_entropy"}
    # temperature and top-k are part of the density
    sampling = Sampling(cfg_weight=5.0, temperature=2.0, image_top_k=4)
    truncated = np.asarray(score(params(), batch, sampling)["codes"][0])
    kept = (logits[np.arange(2 * I), target][:, None] >= np.sort(logits)[:, -4:]).any(-1)
    assert 0 < kept.sum() < 2 * I
    np.testing.assert_array_equal(np.isfinite(truncated), kept)
    top = np.sort(logits)[:, -4:] / 2
    close(truncated[kept], (logits[np.arange(2 * I), target] / 2 - np.log(np.exp(top).sum(-1)))[kept], 1e-4)
    # without an unconditional row: plain log-softmax of the conditional one
    plain = score(params(), batch._replace(uncond_ids=None))["codes"][0]
    logits = np.asarray(cond)[places]
    close(plain, logits[np.arange(2 * I), target] - np.log(np.exp(logits).sum(-1)))


def test_left_padding_changes_nothing_whatever_lies_under_it():
    tight = collate([painter()], len(painter()), 3, code_targets=2 * I, guided=True)
    wide = collate([painter()], len(painter()) + 9, 3, code_targets=2 * I, guided=True)
    assert not wide.mask[0, :9].any()
    expected = score(params(), tight)["codes"]
    close(score(params(), wide)["codes"], expected, 1e-4)
    junk = wide.ids.copy(), wide.uncond_ids.copy()
    for ids in junk:
        ids[:, :9] = np.arange(200, 209)
    filled = wide._replace(ids=junk[0], uncond_ids=junk[1])
    close(score(params(), filled)["codes"], score(params(), wide)["codes"], 1e-6)
    # the same for the judge
    tight = collate([judge()], len(judge()), 3, text_targets=7, pictures=2, fields=("verdict",))
    wide = collate([judge()], len(judge()) + 9, 3, text_targets=9, pictures=2, fields=("verdict",))
    close(score(params(), wide)["text"][:, :7], score(params(), tight)["text"])


def test_guidance_pads_are_attended_and_padding_is_not():
    row = painter()
    batch = collate([row], len(row) + 5, 3, code_targets=2 * I, guided=True)
    before = score(params(), batch)["codes"]
    table = params()["llama"]["embed_tokens"]
    other = {**params(), "llama": {**params()["llama"], "embed_tokens": table.at[3].add(0.5)}}
    # PAD is the unconditional row's prompt, and under the padding, and nowhere else
    given, unconditional = (np.concatenate([getattr(p, name) for p in row.pieces]) for name in ("ids", "uncond"))
    assert PAD not in given and PAD in unconditional
    assert np.abs(np.asarray(score(other, batch)["codes"]) - before).max() > 1e-2
    # where nothing is guided, PAD is under the padding alone: its embedding does not matter
    plain = batch._replace(uncond_ids=None)
    close(score(other, plain)["codes"], score(params(), plain)["codes"], 1e-6)
    # a prompt that was dropped in training is the unconditional row, and its PADs are attended, too
    dropped = painter(text=wordless(prompt()))
    dropped = collate([dropped], len(row) + 5, 3, code_targets=2 * I)
    assert dropped.mask.sum() == len(row)
    assert np.abs(np.asarray(score(other, dropped)["codes"]) - score(params(), dropped)["codes"]).max() > 1e-2


def test_rows_of_a_batch_know_nothing_of_each_other():
    rows = [painter(), painter(text=prompt()[:3] + prompt()[-1:])]
    batch = collate(rows, 80, 3, code_targets=2 * I, guided=True)
    together = score(params(), batch)["codes"]
    for i in range(2):
        alone = score(params(), jax.tree.map(lambda x, i=i: x[i : i + 1], batch))["codes"]
        close(alone[0], together[i], 1e-4)
    assert np.abs(np.asarray(together[0] - together[1])).max() > 1e-2


def naive(logits, ids):
    """By indexing what log_softmax says, as jax differentiates it."""
    return jnp.take_along_axis(jax.nn.log_softmax(logits), ids[..., None], axis=-1)[..., 0]


def test_chosen_log_probabilities_and_their_gradient():
    rng = np.random.default_rng(0)
    logits, weight = rng.standard_normal((3, 5, 7), np.float32) * 9, rng.standard_normal((3, 5), np.float32)
    logits[0, :, 2] = -np.inf
    ids = jnp.asarray(rng.integers(3, 7, (3, 5)), jnp.int32)
    of = lambda f: jax.value_and_grad(lambda logits: jnp.sum(f(logits, ids) * weight))  # noqa: E731
    got, expected = of(logps.chosen)(jnp.asarray(logits)), of(naive)(jnp.asarray(logits))
    close(got[0], expected[0])
    close(got[1], expected[1], 1e-6)
    # a token that cannot be drawn
    assert np.isneginf(logps.chosen(jnp.asarray(logits), ids.at[0].set(2))[0]).all()


def test_logits_in_parts_are_the_same_to_rounding(monkeypatch):
    """Values, entropies and gradients, where three places' codes fit at a time, and one place's words."""
    rows = [painter(), painter(text=prompt()[:3] + prompt()[-1:])]
    pictures = collate(rows, 80, 3, code_targets=2 * I, guided=True)
    words = collate([judge()] * 2, 60, 3, 10, pictures=2, fields=("verdict",))
    weight = jnp.asarray(np.random.default_rng(1).standard_normal((2, 2 * I)), jnp.float32)

    def objective(params):
        outputs = [token_logps(MODEL, params, batch, Sampling(5.0), (YES, NO)) for batch in (pictures, words)]
        drawn, said = outputs[0]["codes"], outputs[1]["text"]
        return jnp.sum(drawn * weight) + jnp.sum(said[:, :7] * weight[:, :7]), outputs

    run = lambda: jax.jit(jax.value_and_grad(objective, has_aux=True))(params())  # noqa: E731
    (whole, outputs), gradient = run()
    monkeypatch.setattr(logps, "WHOLE", 2 * 3 * 16 * 4)
    (value, parts), other = run()
    np.testing.assert_allclose(value, whole, rtol=1e-5)
    jax.tree.map(close, parts, outputs)
    for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(gradient), strict=True):
        close(a, b, 1e-4 * max(1.0, float(jnp.abs(b).max())))


def test_logits_in_parts_never_stand_whole(monkeypatch):
    batch = collate([painter()] * 3, 60, 3, code_targets=2 * I)
    loss = lambda params: token_logps(MODEL, params, batch, Sampling(1.0))["codes"].sum()  # noqa: E731
    held = lambda: str(jax.make_jaxpr(jax.grad(loss))(params()))  # noqa: E731
    whole = f"f32[3,{2 * I},16]"
    assert whole in held()
    monkeypatch.setattr(logps, "WHOLE", 4 * 3 * 8 * 16)
    assert whole not in held() and "f32[3,8,16]" in held()

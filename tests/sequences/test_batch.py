"""Rows and batches drawn by hand, and the log-probabilities of a batch against the model's own methods.

Also the tiny model that the other tests of sequences share: MODEL, params(), processor().
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from janus_jax.models.janus import Janus, JanusConfig, abstract_params
from janus_jax.models.llama import LlamaConfig
from janus_jax.models.siglip import SiglipConfig
from janus_jax.models.vq import VQConfig
from janus_jax.sampling import density
from janus_jax.sampling.density import Sampling
from janus_jax.sequences import tokens
from janus_jax.sequences.batch import CODE, SEEN, TEXT, Row, collate
from janus_jax.sequences.processor import Processor
from janus_jax.shapes.vocabulary import train_tokenizer
from janus_jax.training.logps import token_logps

# 16 codes and 4 seen positions per picture, the embedded world's vocabulary. Sizes divide by 2 for the meshes.
MODEL = Janus(
    JanusConfig(
        llama=LlamaConfig(vocab_size=480, width=32, layers=2, heads=4, kv_heads=2, head_dim=8, mlp=48),
        siglip=SiglipConfig(image_size=16, patch_size=8, width=16, layers=1, heads=2, mlp=32),
        vq=VQConfig(
            image_size=16,
            channels=8,
            channel_multipliers=(1, 1, 2),
            res_blocks=1,
            z_channels=8,
            codebook_size=16,
            code_dim=4,
            groups=4,
        ),
    )
)
I, SEES = MODEL.cfg.vq.tokens, MODEL.cfg.siglip.tokens
EOS, PAD, YES, NO = 2, 3, 11, 12  # of processor(), as its first test says
GUIDED = Sampling(cfg_weight=5.0)


@functools.cache
def params(seed=0):
    """Parameters large enough for every part to matter (numpy: compiling an init takes longer)."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        x = rng.standard_normal(leaf.shape) * 0.3
        if path[0].key == "gen_head":
            x *= 0.5  # guidance magnifies: no picture shall be a foregone conclusion
        if path[-1].key == "lm_head":
            x[:, EOS] *= 5  # reasons that end, and reasons that do not
        return jnp.asarray(1 + x if path[-1].key == "scale" else x, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, abstract_params(MODEL))


@functools.cache
def processor() -> Processor:
    return Processor(train_tokenizer(sentences=400), 16, 16)


@functools.partial(jax.jit, static_argnames="method")
def run(method, params, *args):
    return MODEL.apply({"params": params}, *args, method=method)


@functools.partial(jax.jit, static_argnames=("sampling", "yes_no"))
def score(params, batch, sampling=GUIDED, yes_no=(YES, NO)):
    return token_logps(MODEL, params, batch, sampling, yes_no)


def close(a, b, atol=2e-5):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=atol, rtol=0)


pytestmark = pytest.mark.usefixtures("quick_compiles")


def test_ids_of_the_tiny_tokenizer():
    special = processor().special
    assert (special.eos, special.pad, special.yes, special.no) == (EOS, PAD, YES, NO)
    assert processor().tokenizer.size == MODEL.cfg.llama.vocab_size


# Rows and collate


def drawn_rows():
    first = Row()
    first.add_text([1, 3, 21, 6], uncond=[1, 3, 3, 6])  # a PAD in a prompt is real
    first.add_codes([9, 8], group=2)
    first.add_text([7, 30])
    first.add_codes([5, 4], group=3, extras=[{"advantage": 0.5}, {"advantage": -1.5, "old_logps": -2.0}])
    second = Row()
    second.add_text([1, 6])
    second.add_seen(np.full((2, 2, 3), 0.25, np.float32), 3)
    second.add_text([11, 40, 2], [1, 2, 2], extras=[{"verdict": True}, {}, {}])
    return first, second


def test_a_row_is_what_was_appended():
    first, second = drawn_rows()
    assert len(first) == 10 and len(second) == 8
    assert first.ids == [1, 3, 21, 6, 9, 8, 7, 30, 5, 4]
    assert first.uncond == [1, 3, 3, 6, 9, 8, 7, 30, 5, 4]
    assert first.kind == [TEXT] * 4 + [CODE] * 2 + [TEXT] * 2 + [CODE] * 2
    assert second.kind == [TEXT] * 2 + [SEEN] * 3 + [TEXT] * 3
    # (position before the token, token, group)
    assert [t[:3] for t in first.targets[CODE]] == [(3, 9, 2), (4, 8, 2), (7, 5, 3), (8, 4, 3)]
    assert [t[:3] for t in second.targets[TEXT]] == [(4, 11, 1), (5, 40, 2), (6, 2, 2)]
    assert first.targets[TEXT] == second.targets[CODE] == []


def test_collate_by_hand():
    batch = collate(
        drawn_rows(),
        11,
        3,
        text_targets=4,
        code_targets=4,
        pictures=2,
        extras=("advantage", "old_logps", "verdict"),
        guided=True,
    )
    assert batch.ids.tolist() == [
        [3, 1, 3, 21, 6, 9, 8, 7, 30, 5, 4],
        [3, 3, 3, 1, 6, 0, 0, 0, 11, 40, 2],
    ]
    assert batch.uncond_ids.tolist() == [
        [3, 1, 3, 3, 6, 9, 8, 7, 30, 5, 4],
        [3, 3, 3, 1, 6, 0, 0, 0, 11, 40, 2],
    ]
    drawn = [".ttttccttcc", "...ttsssttt"]
    kinds = {"t": TEXT, "c": CODE, "s": SEEN}
    assert batch.mask.tolist() == [[c != "." for c in row] for row in drawn]
    assert [[k for k, m in zip(*pair, strict=True) if m] for pair in zip(batch.kind, batch.mask, strict=True)] == [
        [kinds[c] for c in row if c != "."] for row in drawn
    ]
    # a guidance PAD (id 3, real) is not a padding PAD (id 3, masked)
    assert batch.mask[0, 2] and batch.uncond_ids[0, 2] == 3 and not batch.mask[0, 0]

    assert batch.codes.at.tolist() == [[4, 5, 8, 9], [0, 0, 0, 0]]
    assert batch.codes.ids.tolist() == [[9, 8, 5, 4], [0, 0, 0, 0]]
    assert batch.codes.weight.tolist() == [[1, 1, 1, 1], [0, 0, 0, 0]]
    assert batch.codes.group.tolist() == [[2, 2, 3, 3], [0, 0, 0, 0]]
    assert batch.codes.advantage.tolist() == [[0, 0, 0.5, -1.5], [0, 0, 0, 0]]
    assert batch.codes.old_logps.tolist() == [[0, 0, 0, -2.0], [0, 0, 0, 0]]
    assert batch.text.at.tolist() == [[0, 0, 0, 0], [7, 8, 9, 0]]
    assert batch.text.ids.tolist() == [[0, 0, 0, 0], [11, 40, 2, 0]]
    assert batch.text.weight.tolist() == [[0, 0, 0, 0], [1, 1, 1, 0]]
    assert batch.text.verdict.tolist() == [[False] * 4, [True, False, False, False]]
    assert batch.text.ref_logps is None
    # every target's token stands right after `at`
    for targets in (batch.codes, batch.text):
        live = targets.weight > 0
        after = np.take_along_axis(batch.ids, np.minimum(targets.at + 1, 10), axis=1)
        np.testing.assert_array_equal(after[live], targets.ids[live])

    assert batch.pixels.shape == (2, 2, 2, 2, 3)
    assert (batch.pixels[1, 0] == 0.25).all() and not batch.pixels[0].any() and not batch.pixels[1, 1].any()
    assert {x.dtype.name for x in (batch.ids, batch.kind, batch.codes.at, batch.codes.group)} == {"int32"}


def test_collate_leaves_out_what_is_not_asked_for():
    row = Row()
    row.add_text([1, 6])
    row.add_codes([2, 3], group=0)
    batch = collate([row], 4, 0, code_targets=2)
    assert batch.text is None and batch.pixels is None and batch.uncond_ids is None and batch.positions is None
    assert batch.codes.advantage is None
    assert batch.mask.all()


def test_collate_refuses_what_does_not_fit():
    first, second = drawn_rows()
    with pytest.raises(ValueError, match="10 positions and 0 pictures does not fit 9 and 0"):
        collate([first], 9, 0, code_targets=4)
    with pytest.raises(ValueError, match="8 positions and 1 pictures does not fit 9 and 0"):
        collate([second], 9, 0, text_targets=4)
    with pytest.raises(ValueError, match="4 targets, more than 3"):
        collate([first], 10, 0, code_targets=3)
    with pytest.raises(ValueError, match="3 targets, more than 2"):
        collate([second], 10, 0, text_targets=2, pictures=1)


# Log-probabilities on the tiny model


def picture(seed):
    return np.random.default_rng(seed).uniform(-1, 1, (16, 16, 3)).astype(np.float32)


def codes(seed):
    return np.random.default_rng(100 + seed).integers(0, 16, I).tolist()


@functools.cache
def prompt():
    return tuple(tokens.prompt_ids(processor().tokenizer, "two red circles"))


def painter(junk=3, text=None, uncond=True):
    """A picture, a reason, a second picture: (row of mixed kinds, its text ids)."""
    row = Row()
    ids = list(text or prompt())
    row.add_text(ids, uncond=tokens.unconditional(ids, 3) if uncond else None)
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
    row.add_text([12, 70, 2], [1, 1, 1], extras=[{"verdict": True}, {}, {}])
    row.add_text([60, 6])
    row.add_seen(picture(1), SEES)
    row.add_text([7, 50])
    row.add_text([11, 71, 72, 2], [1, 1, 1, 1], extras=[{"verdict": True}, {}, {}, {}])
    return row


def test_text_log_probabilities_by_hand():
    batch = collate([judge()], len(judge()), 3, text_targets=7, pictures=2, extras=("verdict",))
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
    unconditional = tokens.unconditional(list(prompt()), 3)
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
    tight = collate([judge()], len(judge()), 3, text_targets=7, pictures=2, extras=("verdict",))
    wide = collate([judge()], len(judge()) + 9, 3, text_targets=9, pictures=2, extras=("verdict",))
    close(score(params(), wide)["text"][:, :7], score(params(), tight)["text"])


def test_guidance_pads_are_attended_and_padding_is_not():
    row = painter()
    batch = collate([row], len(row) + 5, 3, code_targets=2 * I, guided=True)
    before = score(params(), batch)["codes"]
    table = params()["llama"]["embed_tokens"]
    other = {**params(), "llama": {**params()["llama"], "embed_tokens": table.at[3].add(0.5)}}
    # PAD is the unconditional row's prompt, and under the padding, and nowhere else
    assert 3 not in row.ids and 3 in row.uncond
    assert np.abs(np.asarray(score(other, batch)["codes"]) - before).max() > 1e-2
    # where nothing is guided, PAD is under the padding alone: its embedding does not matter
    plain = batch._replace(uncond_ids=None)
    close(score(other, plain)["codes"], score(params(), plain)["codes"], 1e-6)
    # a prompt that was dropped in training is the unconditional row, and its PADs are attended, too
    dropped = painter(text=tokens.unconditional(list(prompt()), 3))
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

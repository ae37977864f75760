"""Trajectories of the tiny model: what they depend on, when they end, and what the painter sees of a picture."""

import dataclasses
import functools
import importlib

import jax
import numpy as np
import pytest
from PIL import Image
from tiny import EOS, MODEL, NO, PAD, SEES, YES, I, grammar, params, picture, processor, run, score
from trajectories import PROMPTS, SAMPLING, draw, drawn, until, until_yes

import janus_jax
from janus_jax.errors import UserError
from janus_jax.parallel import sharding
from janus_jax.sampling.density import Sampling
from janus_jax.sampling.introspect import introspect
from janus_jax.sequences import images, tokens
from janus_jax.sequences.batch import SEEN
from janus_jax.sequences.request import Request
from janus_jax.sequences.row import Row, collate

pytestmark = pytest.mark.usefixtures("quick_compiles")


def same(got, expected, rounds=None):
    assert [(t.prompt, t.sample) for t in got] == [(t.prompt, t.sample) for t in expected]
    for a, b in zip(got, expected, strict=True):
        assert rounds or len(a.rounds) == len(b.rounds)
        for x, y in zip(a.rounds[:rounds], b.rounds[:rounds], strict=True):
            np.testing.assert_array_equal(x.codes, y.codes)
            np.testing.assert_array_equal(x.reason_ids, y.reason_ids)
            assert x.verdict == y.verdict and x.reason == y.reason
            np.testing.assert_allclose(x.code_logps, y.code_logps, atol=2e-4)
            # Another batch size is another program: a pixel at the edge of a grey level may be truncated to the other
            # side of it, and the judge then sees another picture.
            levels = np.abs(np.asarray(x.image, int) - np.asarray(y.image, int))
            assert levels.max() <= 1 and (levels > 0).mean() < 0.01
            atol = 5e-3 if levels.any() else 2e-4
            assert x.p_yes == pytest.approx(y.p_yes, abs=atol)
            np.testing.assert_allclose(x.reason_logps, y.reason_logps, atol=atol)


def test_on_a_mesh():
    """The pictures are those of one device."""
    mesh = sharding.make_mesh(2, 2, 2)
    places = sharding.param_shardings(params(), mesh, without=("fsdp",))
    with jax.set_mesh(mesh):
        got = introspect(
            MODEL, jax.device_put(params(), places), processor(), PROMPTS, 4, 2, SAMPLING, batch=8, always=True
        )
    same(got, [until(t, 2) for t in drawn()])


@pytest.mark.parametrize("call", ["introspect", "edit"])
def test_the_checkpoints_own_sampling(call, monkeypatch):
    """Unless another one is given."""
    module, seen = importlib.import_module("janus_jax.sampling.introspect"), []
    monkeypatch.setattr(module, "rollouts", lambda *given, **settings: seen.append(given[5]) or [])
    own = dataclasses.replace(processor(), drawn_with={"cfg_weight": 1.5, "temperature": 0.7})
    for chosen in ({}, {"sampling": SAMPLING}):
        if call == "edit":
            janus_jax.edit(MODEL, None, own, Image.new("RGB", (8, 8)), "blue", **chosen)
        else:
            janus_jax.introspect(MODEL, None, own, ["a circle"], **chosen)
    assert seen == [Sampling(cfg_weight=1.5, temperature=0.7), SAMPLING]
    asked = janus_jax.load("shapes-rl")[2].drawn_with
    assert Sampling(**asked) == janus_jax.sampling_of("shapes-rl") != Sampling()


def test_fields():
    got = drawn()
    assert [(t.prompt, t.sample) for t in got] == [(p, s) for p in PROMPTS for s in range(4)]
    for t in got:
        assert len(t.rounds) == 3
        for shot in t.rounds:
            assert shot.codes.shape == shot.code_logps.shape == (I,)
            assert shot.image.size == (16, 16) and shot.image.mode == "RGB"
            assert (shot.code_logps <= 0).all() and (shot.reason_logps <= 0).all()
            assert shot.reason_ids.shape == shot.reason_logps.shape
            assert 1 <= len(shot.reason_ids) <= 5
            # every sampled token, EOS last if there is one, and no PAD of the batch
            assert EOS not in shot.reason_ids[:-1]
            assert len(shot.reason_ids) == 5 or shot.reason_ids[-1] == EOS
            assert shot.reason == processor().decode(shot.reason_ids)
            assert shot.reason.startswith("Yes" if shot.verdict else "No")
    ends = {bool(shot.reason_ids[-1] == EOS) for t in got for shot in t.rounds}
    assert ends == {True, False}
    # decoded pictures are those of the codes
    codes = np.stack([t.rounds[1].codes for t in got])
    pixels = images.to_uint8(run("decode_codes", params(), codes))
    for t, expected in zip(got, pixels, strict=True):
        assert np.abs(np.asarray(t.rounds[1].image).astype(int) - expected).max() <= 1
    assert len({t.rounds[0].codes.tobytes() for t in got}) == 8


def test_the_verdict_is_yes_or_no_and_p_yes_is_its_probability():
    verdicts = set()
    for t in drawn():
        for shot in t.rounds:
            assert shot.reason_ids[0] in (YES, NO)
            assert shot.verdict == (shot.reason_ids[0] == YES)
            # temperature is 1: the sampler's own log-probability
            expected = shot.p_yes if shot.verdict else 1 - shot.p_yes
            assert np.exp(shot.reason_logps[0]) == pytest.approx(expected, abs=1e-5)
            verdicts.add(shot.verdict)
    assert verdicts == {True, False}


def test_rows_that_said_yes_stop_and_the_others_are_not_touched_by_that():
    got = draw()
    lengths = [len(t.rounds) for t in got]
    assert set(lengths) >= {1, 3}, lengths
    for t in got:
        said = [shot.verdict for shot in t.rounds]
        assert not any(said[:-1])
        assert said[-1] or len(said) == 3
        assert t.final == len(said) - 1
    same(got, [until_yes(t) for t in drawn()])


def test_final_is_the_first_yes_else_the_last():
    for t in drawn():
        said = [shot.verdict for shot in t.rounds]
        assert t.final == (said.index(True) if True in said else 2)
    # never the largest p_yes
    assert any(np.argmax([shot.p_yes for shot in t.rounds]) != t.final for t in drawn())


def test_the_batch_size_does_not_matter():
    finished = []
    got = draw(batch=4, progress=finished.append, seed=3)
    assert finished == [4, 4]
    # rows that are done are taken out of the caches, which shrink from four rows to two or one for the third round
    assert 1 <= sum(len(t.rounds) == 3 for t in got[:4]) <= 2
    same(got, [until_yes(t) for t in draw(always=True, seed=3)])


def test_neither_do_the_other_prompts_and_samples():
    got = draw(prompts=PROMPTS[1:], samples=3, batch=4, always=True)
    same(got, drawn()[4:7])
    # alone, the first prompt is padded less; and fewer rounds are the beginning of more
    got = draw(prompts=PROMPTS[:1], samples=2, rounds=1)
    assert all(len(t.rounds) == 1 for t in got)
    same(got, drawn()[:2], rounds=1)


def test_seed_sample_and_round_do_matter():
    for a, b in zip(draw(seed=1, always=True), drawn(), strict=True):
        assert (a.rounds[0].codes != b.rounds[0].codes).any()
        assert (b.rounds[0].codes != b.rounds[1].codes).any()


@functools.cache
def reencoded():
    return draw(context="reencode", always=True)


def test_what_the_painter_sees_of_a_picture():
    for t in drawn():
        for shot in t.rounds:
            np.testing.assert_array_equal(shot.context_codes, shot.codes)
    same(reencoded(), drawn(), rounds=1)
    pixels = np.stack([processor().for_generation(t.rounds[0].image) for t in reencoded()])
    again = run("encode_codes", params(), pixels)
    np.testing.assert_array_equal(again, [t.rounds[0].context_codes for t in reencoded()])
    moved = [(t.rounds[0].context_codes != t.rounds[0].codes).any() for t in reencoded()]
    assert any(moved)
    changed = [(a.rounds[1].codes != b.rounds[1].codes).any() for a, b in zip(reencoded(), drawn(), strict=True)]
    assert any(changed)
    assert not any(c and not m for c, m in zip(changed, moved, strict=True))


def painter_row(t, turn):
    """The painter's sequence up to the picture of a round, whose codes are the targets."""
    tokenizer = processor().tokenizer
    prompt = tokens.prompt_ids(tokenizer, t.prompt)
    row = Row()
    row.add_text(prompt, uncond=[prompt[0], *[PAD] * (len(prompt) - 2), prompt[-1]])
    for shot in t.rounds[:turn]:
        row.add_codes(shot.context_codes.tolist())
        said = [int(i) for i in shot.reason_ids if i != EOS]
        think, onward = (tokenizer.encode(text, bos=False) for text in (tokens.THINK, tokens.NEXT))
        row.add_text(think + said + onward)
    row.add_codes(t.rounds[turn].codes.tolist(), group=0)
    return row


@pytest.mark.parametrize("turn", [1, 2])
def test_reencoded_pictures_are_the_context(turn):
    rows = [painter_row(t, turn) for t in reencoded()]
    batch = collate(rows, 3 * I + 60, PAD, code_targets=I, guided=True)
    got = score(params(), batch, SAMPLING)["codes"]
    np.testing.assert_allclose(got, [t.rounds[turn].code_logps for t in reencoded()], atol=2e-4)


def test_an_edit_is_drawn_and_judged_beside_its_source():
    """Every token has the probability that it has in the grammar's row with the source: its codes for the painter, its
    pixels for the judge."""
    source = Image.fromarray(images.to_uint8(picture(7)))
    asked = [Request("paint it red", source), Request("add a blue circle to it", source.rotate(90))]
    got = draw(prompts=asked, samples=2, rounds=2, batch=4, always=True)
    assert [t.request for t in got] == [request for request in asked for _ in range(2)]
    painters, judges = [], []
    for t in got:
        painter, judge, one, two = Row(), Row(), *t.rounds
        drawn_source = run("encode_codes", params(), processor().for_generation(t.request.source)[None])[0]
        grammar().ask(painter, t.request, drawn_source)
        grammar().draw(painter, one.codes, 0)
        grammar().redraw(painter, one.reason_ids)
        grammar().draw(painter, two.codes, 0)
        grammar().ask(judge, t.request, processor().for_understanding(t.request.source))
        for turn, shot in enumerate(t.rounds):
            if turn:
                grammar().look_again(judge, one.reason_ids)
            grammar().look(judge, processor().for_understanding(shot.image))
            grammar().say(judge, shot.reason_ids, 0, verdict=np.arange(len(shot.reason_ids)) == 0)
        painters.append(painter)
        judges.append(judge)
    batch = collate(painters, max(map(len, painters)), PAD, code_targets=2 * I, guided=True)
    expected = [np.concatenate([shot.code_logps for shot in t.rounds]) for t in got]
    np.testing.assert_allclose(score(params(), batch, SAMPLING)["codes"], expected, atol=2e-4)
    settings = {"text_targets": 10, "pictures": 3, "fields": ("verdict",)}
    batch = collate(judges, max(map(len, judges)), PAD, **settings)
    assert (batch.kind == SEEN).sum() == len(got) * 3 * SEES
    words = np.asarray(score(params(), batch, SAMPLING)["text"])
    for row, t in zip(words, got, strict=True):
        expected = np.concatenate([shot.reason_logps for shot in t.rounds])
        np.testing.assert_allclose(row[: len(expected)], expected, atol=2e-4)
    # the source matters
    other = draw(prompts=[Request("paint it red", source.rotate(90))], samples=2, rounds=1, batch=4)
    assert all((a.rounds[0].codes != b.rounds[0].codes).any() for a, b in zip(other, got, strict=False))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"prompts": []}, "there are no prompts"),
        ({"prompts": ["two red circles", "  "]}, "the prompt is empty"),
        ({"prompts": ["red " * 30_000]}, "leave no room for a picture in the model's .* shorten it"),
        ({"context": "pixels"}, "'pixels' is neither 'codes' nor 'reencode'"),
        ({"rounds": 0}, "rounds must be at least 1, not 0"),
        ({"samples": 0}, "samples must be at least 1, not 0"),
        ({"rounds": 1000}, "1000 rounds .* allow fewer rounds or words"),
        ({"prompts": [PROMPTS[0], Request("paint it red", Image.new("RGB", (8, 8)))]}, "draw them in two calls"),
    ],
)
def test_errors(settings, message):
    with pytest.raises(UserError, match=message) as error:
        draw(**settings)
    assert "\n" not in str(error.value)

"""Groups grown by mended pictures and by changed prompts; rows that redraw what was mended."""

import dataclasses

import numpy as np
import pytest
from tiny import grammar

from janus_jax.data import cache, labels, mended, mixture
from janus_jax.sequences.batch import CODE
from janus_jax.shapes import mend, render, scene, text, verify
from janus_jax.shapes.world import SECOND, WORLDS

EVERY = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)


def made(world, prompts=18):
    """Rendered groups, three pictures each: a right one and two near misses; codes number the pictures."""
    rng = np.random.default_rng(3)
    asked = [text.train_prompt(rng, text.CATEGORIES[i % 6], world) for i in range(prompts)]
    pixels = []
    for prompt in asked:
        ask = text.parse(prompt, world)
        scenes = [scene.compose(rng, ask, world)] + [scene.near_miss(rng, ask, world) for _ in range(2)]
        pixels.append([render.render(each, world=world) for each in scenes])
    pixels = np.array(pixels)
    codes = np.arange(3 * prompts).reshape(prompts, 3, 1).repeat(4, axis=2)
    return labels.label(rng, asked, codes, pixels, world)


def reproduce(pictures):
    """A tokenizer that loses nothing, and whose codes say nothing."""
    return np.full((len(pictures), 4), 999, np.int32), pictures


@EVERY
@pytest.mark.parametrize("packed", [False, True])
def test_wrong_pictures_are_mended(world, packed):
    groups = made(world)
    groups = cache.packed(groups) if packed else groups
    got = mended.with_mended(np.random.default_rng(0), groups, reproduce, 1, world)
    old = got.codes[:, 0] != 999
    np.testing.assert_array_equal(got.codes[old], groups.codes)  # the others are there, in their order
    assert [str(reason) for reason in got.reasons[old]] == groups.reasons.tolist()
    pairs = np.flatnonzero(got.mended >= 0)
    assert len(pairs) == (~old).sum() > 10 and set(got.mended[pairs]) == set(np.flatnonzero(~old))
    owner = np.repeat(np.arange(len(got)), np.diff(got.start))
    for wrong, right in zip(pairs, got.mended[pairs], strict=True):
        assert owner[wrong] == owner[right] and got.score[wrong] < 0.5 and got.score[right] == 1
        ask = text.parse(str(got.prompts[owner[wrong]]), world)
        before, after = (verify.read(got.pixels[n], world) for n in (wrong, right))
        assert verify.matches(ask, after) and got.reasons[right].startswith("Yes")
        matched = verify.match(ask, before)
        if not ask.relation:
            assert mend.kept(before, after) >= sum(map(len, matched.found))
    assert np.bincount(owner[pairs], minlength=len(got)).max() == 1  # one each was asked for


def test_nothing_is_mended_where_nothing_is_wrong():
    groups = made(SECOND)
    right = dataclasses.replace(groups, score=np.ones_like(groups.score))
    assert mended.with_mended(np.random.default_rng(0), right, reproduce, 1, SECOND) is right


@EVERY
def test_pictures_are_judged_by_changed_prompts(world):
    groups = made(world, 36)
    got = mended.by_changed_prompts(np.random.default_rng(0), groups, world)
    assert len(got) > 8 and np.diff(got.start).tolist() == [1] * len(got)
    owner = np.repeat(np.arange(len(groups)), np.diff(groups.start))
    origin = {int(code): str(groups.prompts[p]) for code, p in zip(groups.codes[:, 0], owner, strict=True)}
    for p, prompt in enumerate(got.prompts):
        (n,) = got.pictures(p)
        first, other = (text.parse(each, world) for each in (origin[int(got.codes[n, 0])], str(prompt)))
        assert text.split_of(str(prompt), world) == "train" and first != other
        right = verify.matches(other, verify.read(got.pixels[n], world))
        assert (got.score[n] == 1) == right and got.reasons[n].startswith("Yes" if right else "No")
    assert (got.score < 0.5).mean() > 0.7  # a right picture of the one is a wrong one of the other


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_only_what_is_mended_is_scrambled(share):
    """A target that is any right picture keeps nothing on purpose: where codes agree, that is chance."""
    groups = mended.with_mended(np.random.default_rng(0), made(SECOND), reproduce, 2, SECOND)
    # 16 codes per picture, of which all but the first are every picture's
    groups = dataclasses.replace(groups, codes=np.arange(len(groups.codes))[:, None] * (np.arange(16) == 0) + 7)
    maker = mixture.RowMaker(groups, grammar(), drop=0.0, mended=share, scrambled=1.0)
    changed = []
    for seed in range(100):
        row = maker.make(np.random.default_rng(seed), "redraw", 1)
        wrong, right = (piece.ids for piece in row.pieces if piece.kind == CODE)
        np.testing.assert_array_equal(wrong[1:], right[1:])
        kept = groups.mended[wrong[0] - 7] == right[0] - 7
        changed.append((wrong[1:] != 7).any())
        assert kept or not changed[-1]
    assert (groups.mended >= 0).any() and (np.mean(changed) > 0.6 if share else np.mean(changed) < 0.5)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_rows_redraw_what_was_mended(share):
    groups = mended.with_mended(np.random.default_rng(0), made(SECOND), reproduce, 2, SECOND)
    numbered = np.arange(len(groups.codes))[:, None].repeat(16, axis=1).astype(np.int32)
    groups = dataclasses.replace(groups, codes=numbered)
    maker = mixture.RowMaker(groups, grammar(), drop=0.0, mended=share)
    hits = []
    for seed in range(200):
        row = maker.make(np.random.default_rng(seed), "redraw", 1)
        wrong, right = (int(piece.ids[0]) for piece in row.pieces if piece.kind == CODE)
        assert groups.score[wrong] < 0.5 and groups.score[right] == 1
        if groups.mended[wrong] >= 0:
            hits.append(right == groups.mended[wrong])
    assert len(hits) > 100
    if share == 1:
        assert all(hits)
    else:
        assert abs(np.mean(hits) - (share + (1 - share) * 0.33)) < 0.2

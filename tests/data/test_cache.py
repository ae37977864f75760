"""Caches of labelled pictures: joined, merged by prompt, and grown by pictures that a model drew."""

import dataclasses

import numpy as np
import pytest
from tiny import MODEL, params, processor

from janus_jax import label_drawings
from janus_jax.data import cache
from janus_jax.errors import UserError
from janus_jax.sampling.density import Sampling
from janus_jax.sampling.introspect import introspect


def groups(prompts, counts, first):
    """A cache whose pictures are numbered from `first`, in their codes, scores and texts alike."""
    numbers = np.arange(first, first + sum(counts))
    return cache.Groups(
        prompts=np.array(prompts),
        start=np.cumsum([0, *counts]),
        codes=np.repeat(numbers[:, None], 4, axis=1).astype(np.int32),
        pixels=np.zeros((len(numbers), 2, 2, 3), np.uint8) + numbers[:, None, None, None].astype(np.uint8),
        score=numbers.astype(np.float32),
        reasons=np.array([f"No, {n}." for n in numbers]),
        captions=np.array([f"{n}." for n in numbers]),
    )


def test_join_puts_prompts_one_after_another():
    both = cache.join([groups(["a", "b"], [1, 2], 0), groups(["c"], [2], 10)])
    assert both.prompts.tolist() == ["a", "b", "c"] and both.start.tolist() == [0, 1, 3, 5]
    assert both.score.tolist() == [0, 1, 2, 10, 11]


def test_merge_gives_each_prompt_the_pictures_of_both():
    both = cache.merge(groups(["a", "b", "c"], [2, 0, 1], 0), groups(["a", "b", "c"], [1, 2, 0], 10))
    assert [both.score[both.pictures(p)].tolist() for p in range(3)] == [[0, 1, 10], [11, 12], [2]]
    for array in (both.codes[:, 0], both.pixels[:, 0, 0, 0]):
        assert array.tolist() == both.score.tolist()
    assert both.captions.tolist() == [f"{int(n)}." for n in both.score]
    with pytest.raises(ValueError, match="different prompts"):
        cache.merge(groups(["a"], [1], 0), groups(["b"], [1], 0))


def test_join_and_merge_know_who_mends_whom():
    """Picture 2 mends 1 in the first, 12 mends 11 in the second; where they lie afterwards, they still do."""
    one = dataclasses.replace(groups(["a", "b"], [1, 2], 0), mended=np.array([-1, 2, -1]))
    other = dataclasses.replace(groups(["a", "b"], [1, 2], 10), mended=np.array([-1, 2, -1]))
    for both in (cache.join([one, other]), cache.merge(one, other)):
        pairs = {(both.score[n], both.score[m]) for n, m in enumerate(both.mended) if m >= 0}
        assert pairs == {(1, 2), (11, 12)}


@pytest.mark.parametrize("pack", [lambda groups: groups, cache.packed])
def test_chosen_prompts_keep_their_pictures(pack):
    """Edits' sources and what mends what are found again, in another order."""
    given = groups(["a", "b", "c"], [2, 3, 2], 0)
    given = dataclasses.replace(given, source=np.array([-1, 2, -1]), mended=np.array([-1, -1, -1, 4, -1, 6, -1]))
    some = cache.chosen(pack(given), [2, 1])
    assert some.prompts.tolist() == ["c", "b"] and some.start.tolist() == [0, 2, 5]
    assert some.score.tolist() == [5, 6, 2, 3, 4] and some.captions[0] == "5."
    assert [int(some.pixels[n][0, 0, 0]) for n in range(5)] == [5, 6, 2, 3, 4]
    assert some.score[some.source[1]] == 2 and some.source[0] == -1
    assert {(some.score[n], some.score[m]) for n, m in enumerate(some.mended) if m >= 0} == {(5, 6), (3, 4)}


def test_packed_pictures_are_the_same(tmp_path):
    plain = groups(["a", "b"], [1, 2], 0)
    packed = cache.packed(plain)
    assert packed.pixels.shape == plain.pixels.shape and cache.packed(packed) is packed
    cache.save(tmp_path / "packed.npz", packed)
    for each in (packed, cache.load(tmp_path / "packed.npz")):
        np.testing.assert_array_equal(each.pixels[2], plain.pixels[2])
        np.testing.assert_array_equal(each.pixels[np.array([2, 0])], plain.pixels[[2, 0]])
        np.testing.assert_array_equal(each.pixels[np.array([True, False, True])], plain.pixels[[0, 2]])
        assert each.pixels[np.zeros(0, int)].shape == (0, 2, 2, 3)
    more = groups(["a", "b"], [2, 1], 10)
    for way in (cache.merge, lambda a, b: cache.join([a, b])):
        both, expected = way(packed, cache.packed(more)), way(plain, more)
        np.testing.assert_array_equal(both.pixels[np.arange(6)], expected.pixels)
    with pytest.raises(UserError, match="make them alike"):
        cache.join([packed, more])


def test_saved_and_loaded(tmp_path):
    made = groups(["a", "b"], [1, 2], 0)
    cache.save(tmp_path / "deep" / "cache.npz", made)
    loaded = cache.load(tmp_path / "deep" / "cache.npz")
    for field in dataclasses.fields(cache.Groups):
        assert np.array_equal(getattr(loaded, field.name), getattr(made, field.name))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "deep" / "cache.npz").read_bytes()[:-100])
    with pytest.raises(UserError, match="cache_codes"):
        cache.load(tmp_path / "cut.npz")


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_paint_draws_what_introspection_draws_first(weight):
    prompts = ["a red circle", "two blue squares", "a cross above a green triangle"]
    sampling = Sampling(cfg_weight=weight, max_reason_tokens=4)
    codes, pixels = label_drawings.paint(MODEL, params(), processor(), prompts, sampling, 5, number=1, batch=2)
    trajectories = introspect(MODEL, params(), processor(), prompts, 2, 1, sampling, seed=5)
    first = [t.rounds[0] for t in trajectories if t.sample == 1]
    assert codes.tolist() == [shot.codes.tolist() for shot in first]
    assert np.abs(pixels.astype(int) - np.stack([shot.image for shot in first])).max() <= 1


def test_an_unwritable_place_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="another --out"):
        cache.save(tmp_path / "file" / "cache.npz", groups(["a"], [1], 0))


def test_a_long_text_costs_what_it_is_long(tmp_path):
    """An array of fixed width would hold 500 times the longest, in memory and on disk."""
    made = groups(["a"], [500], 0)
    long = dataclasses.replace(made, reasons=["No. " + "x" * 1_000_000, *made.reasons[1:]], captions=["ähm 図\n"] * 500)
    cache.save(tmp_path / "cache.npz", long)
    assert (tmp_path / "cache.npz").stat().st_size < 1_200_000
    loaded = cache.load(tmp_path / "cache.npz")
    assert loaded.reasons.tolist() == long.reasons.tolist() and loaded.captions[499] == "ähm 図\n"
    assert loaded.reasons.nbytes < 10_000
    both = cache.join([loaded, made])
    assert both.reasons.nbytes < 10_000 and both.reasons[500] == "No, 0."


def test_caches_of_before_are_read(tmp_path):
    made = groups(["a", "bcd"], [1, 2], 0)
    arrays = {field.name: getattr(made, field.name) for field in dataclasses.fields(cache.Groups)}
    arrays |= {name: arrays[name].astype(str) for name in ("prompts", "reasons", "captions")}
    np.savez(tmp_path / "old.npz", **arrays)
    np.savez(tmp_path / "files.npz", **{**arrays, "pixels": np.array(["a.png", "b.png", "c.png"]), "side": 16})
    loaded = cache.load(tmp_path / "old.npz")
    for field in dataclasses.fields(cache.Groups):
        assert np.array_equal(getattr(loaded, field.name), getattr(made, field.name))
    assert loaded.prompts.dtype == object
    assert cache.load(tmp_path / "files.npz").pixels.shape == (3, 16, 16, 3)
    files = dataclasses.replace(made, pixels=cache.PictureFiles(["x.png", "yy.png", "z.png"], 16))
    cache.save(tmp_path / "new.npz", files)
    assert list(cache.load(tmp_path / "new.npz").pixels.paths) == ["x.png", "yy.png", "z.png"]


@pytest.mark.parametrize("ends", [[1, 99], [6, 2], [-1, 2]])
def test_texts_whose_ends_are_damaged(tmp_path, ends):
    made = groups(["a", "b"], [1, 1], 0)
    cache.save(tmp_path / "cache.npz", made)
    with np.load(tmp_path / "cache.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "cache.npz", **{**arrays, "prompts.ends": np.array(ends)})
    with pytest.raises(UserError, match="ends of prompts do not go with their bytes"):
        cache.load(tmp_path / "cache.npz")

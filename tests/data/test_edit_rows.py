"""Edits in stage 1: their caches, and the rows, which are those of inference with targets."""

import dataclasses

import jax
import numpy as np
import pytest
from commands import MICRO, refused
from ml_collections import ConfigDict
from tiny import MODEL, SEES, I, codes, grammar, params, picture, processor

from janus_jax import cli, label_drawings, train_sft
from janus_jax.checkpoints import loading
from janus_jax.data import building, cache, mixture
from janus_jax.errors import UserError
from janus_jax.models import codec
from janus_jax.parallel import sharding
from janus_jax.sequences.batch import CODE, EDIT, GROUPS, REASON, TEXT, VERDICT
from janus_jax.sequences.request import Request
from janus_jax.sequences.row import Row
from janus_jax.shapes import reasons, text, verify
from janus_jax.training import settings, sft
from janus_jax.training.loop import supervised

REASONS = ["No, the circle is not blue.", "Yes, the circle is blue.", "No, there is no cross."]


def edits(first=0, source=True):
    """One group: a source, which is a copy, a right edit, and a wrong one; numbered from `first`."""
    numbers = range(first, first + 3)
    return cache.Groups(
        prompts=["make the circle blue"],
        start=np.array([0, 3]),
        codes=np.array([codes(n) for n in numbers], np.int32),
        pixels=np.stack([np.rint((picture(n) + 1) * 127.5) for n in numbers]).astype(np.uint8),
        score=np.array([0, 1, 0.2], np.float32),
        reasons=REASONS,
        captions=["circle."] * 3,
        source=np.array([0]) if source else None,
    )


def seen(groups, n):
    return groups.pixels[n]


def words(reason):
    special = processor().special
    return [*processor().tokenizer.encode(reason, bos=False, literal=True), special.eos]


def same(row, other):
    for mine, its in zip(row.pieces, other.pieces, strict=True):
        for a, b in zip(mine, its, strict=True):
            np.testing.assert_array_equal(a, b)
    for a, b in zip(row.pictures, other.pictures, strict=True):
        np.testing.assert_array_equal(a, b)


def asked(source):
    row = Row()
    grammar().ask(row, Request("make the circle blue", object()), source)
    return row


@pytest.mark.parametrize("earlier", [0, 1])
def test_an_edit_row_is_what_the_sampler_would_have(earlier):
    groups = edits()
    maker = mixture.RowMaker(groups, grammar(), drop=0.0)
    for seed in range(5):
        row = maker.make(np.random.default_rng(seed), "edit", earlier)
        expected = asked(groups.codes[0])
        if earlier:
            wrong = next(n for n in (0, 2) if np.array_equal(row.pieces[3].ids, groups.codes[n]))
            grammar().draw(expected, groups.codes[wrong])
            grammar().redraw(expected, words(REASONS[wrong]))
        grammar().draw(expected, groups.codes[1])
        same(row, expected)
        targets = row.targets(CODE)
        np.testing.assert_array_equal(targets["ids"], groups.codes[1])  # the target alone, the source is context
        np.testing.assert_array_equal(targets["at"], np.arange(len(row) - I - 1, len(row) - 1))
        assert set(targets["group"]) == {EDIT} and not row.targets(TEXT)


def test_a_judge_s_row_sees_the_source_first():
    groups = edits()
    maker, verdicts = mixture.RowMaker(groups, grammar(), drop=1.0), set()
    for seed in range(20):
        row = maker.make(np.random.default_rng(seed), "judge_edit", 1)
        past, last = (next(n for n in range(3) if np.array_equal(p, seen(groups, n))) for p in row.pictures[1:])
        expected = asked(seen(groups, 0))  # never dropped
        grammar().look(expected, seen(groups, past))
        grammar().say(expected, words(REASONS[past]))
        grammar().look_again(expected, words(REASONS[past]))
        grammar().look(expected, seen(groups, last))
        grammar().say(expected, words(REASONS[last]))
        same(row, expected)
        targets = row.targets(TEXT)
        np.testing.assert_array_equal(targets["ids"], words(REASONS[last]))
        assert list(targets["group"]) == [VERDICT] + [REASON] * (len(targets["ids"]) - 1)
        assert past != 1
        verdicts.add(last)
    assert verdicts == {0, 1, 2}


def test_dropping_keeps_the_source():
    groups = edits()
    dropped = mixture.RowMaker(groups, grammar(), drop=1.0).make(np.random.default_rng(0), "edit", 0)
    expected = asked(groups.codes[0])
    grammar().draw(expected, groups.codes[1])
    pad, inner = processor().special.pad, len(expected.pieces[2].ids)
    assert (dropped.pieces[2].ids == pad).sum() == len(processor().tokenizer.encode("make the circle blue", bos=False))
    assert len(dropped.pieces[2].ids) == inner
    np.testing.assert_array_equal(dropped.pieces[1].ids, groups.codes[0])
    np.testing.assert_array_equal(dropped.pieces[2].ids, expected.pieces[2].uncond)
    np.testing.assert_array_equal(dropped.pieces[0].ids, expected.pieces[0].ids)


def pictures_of(row):
    return np.stack([piece.ids for piece in row.pieces if piece.kind == CODE])


@pytest.mark.parametrize("earlier", [0, 1])
def test_codes_that_stay_are_scrambled_alike(earlier):
    """Of what all pictures share, random codes, the same in all; what an edit makes is as it was."""
    groups = edits()
    shared = np.arange(I) % 3 > 0  # two thirds of the places have one code in all pictures
    own = np.arange(groups.codes.size).reshape(groups.codes.shape)
    groups = dataclasses.replace(groups, codes=np.where(shared, own[0], own))
    plain, mixed = (mixture.RowMaker(groups, grammar(), drop=0.0, scrambled=share) for share in (0.0, 1.0))
    replaced = []
    for seed in range(40):
        before, after = (
            pictures_of(maker.make(np.random.default_rng(seed), "edit", earlier)) for maker in (plain, mixed)
        )
        np.testing.assert_array_equal(before[1:, ~shared], after[1:, ~shared])
        assert (after[:, shared] == after[0, shared]).all()
        assert np.isin(after, groups.codes).all()
        replaced.append((before != after).any(0)[shared].mean())
    assert min(replaced) < 0.2 and max(replaced) > 0.6
    assert abs(np.mean(replaced) - 0.5) < 0.15


def test_scrambled_by_hand():
    """A 7 and a 9 stay, a 3 and a 4 trade places, a 5 becomes a 6, the ground is 0."""
    codes, used = np.array([[0, 0, 0, 7, 3, 4, 5, 0, 9, 0], [0, 0, 0, 7, 4, 3, 6, 0, 9, 0]]), np.arange(100, 200)
    found = [mixture.scrambled(np.random.default_rng(seed), codes, used, edit=True) for seed in range(200)]
    for source, target in found:
        np.testing.assert_array_equal(source[[0, 1, 2, 3, 7, 8, 9]], target[[0, 1, 2, 3, 7, 8, 9]])
        assert (source[4], source[5], 6) == (target[5], target[4], target[6])  # what has moved is still found
        assert np.isin(source, [*used, *codes[0]]).all()
    rates = (np.array(found)[:, 0] != codes[0]).mean(0)
    assert (abs(rates - 0.5) < 0.15).all()
    assert any(len(set(source[:3])) == 3 for source, _ in found if (source[:3] >= 100).all())  # each place its own
    for seed in range(50):  # what is painted after no source keeps what is wrong
        source, target = mixture.scrambled(np.random.default_rng(seed), codes, used, edit=False)
        np.testing.assert_array_equal((source[4:7], target[4:7]), codes[:, 4:7])
    moved = np.array([[0, 0, 0, 8, 0], [0, 8, 0, 0, 0]])
    for seed in range(50):  # the ground that something leaves, and the one that it moves to, are the ground
        source, target = mixture.scrambled(np.random.default_rng(seed), moved, used, edit=True)
        assert source[3] == target[1] and source[1] == target[3] == 0


def test_each_task_has_its_own_groups():
    drawn, edited = edits(10, source=False), edits(20)
    both = mixture.RowMaker(cache.join([drawn, edited]), grammar(), drop=0.0)
    rng = np.random.default_rng(0)
    for task, groups in (("draw", drawn), ("edit", edited)):
        for _ in range(10):
            np.testing.assert_array_equal(both.make(rng, task, 0).targets(CODE)["ids"], groups.codes[1])
    for task, groups in (("judge", drawn), ("judge_edit", edited)):
        looks = [both.make(rng, task, 0).pictures for _ in range(10)]
        assert {len(pictures) for pictures in looks} == {1 if task == "judge" else 2}
        assert all(any(np.array_equal(p, seen(groups, n)) for n in range(3)) for pics in looks for p in pics)
    for task, groups in (("edit", drawn), ("draw", edited), ("judge_edit", drawn)):
        with pytest.raises(UserError, match=f"no prompt .* pictures for {task} with 0"):
            mixture.RowMaker(groups, grammar()).make(rng, task, 0)


def test_a_batch_of_all_of_them():
    kinds = [("draw", 0, 1), ("judge", 0, 1), ("edit", 0, 2), ("edit", 1, 1), ("judge_edit", 1, 2)]
    bucket = mixture.Bucket(120, tuple(mixture.Kind(*kind) for kind in kinds))
    maker = mixture.RowMaker(cache.join([edits(0, source=False), edits(5)]), grammar())
    (batch,) = mixture.Steps(maker, [bucket], 0, 1)[0]
    assert batch.pixels.shape[1] == 3 and (batch.kind == 2).sum() == SEES * (1 + 2 * 3)
    trained = batch.codes.group[batch.codes.weight > 0]
    assert (trained == EDIT).sum() == 3 * I and (trained != EDIT).sum() == I
    (blank,) = mixture.blank([bucket], I, 16)
    assert blank.codes.at.shape == batch.codes.at.shape and blank.pixels.shape == batch.pixels.shape


def test_sources_follow_their_pictures(tmp_path):
    made = cache.join([edits(0, source=False), edits(5), edits(10)])
    assert made.source.tolist() == [-1, 3, 6]
    cache.save(tmp_path / "cache.npz", made)
    loaded = cache.load(tmp_path / "cache.npz")
    for field in dataclasses.fields(cache.Groups):
        np.testing.assert_array_equal(getattr(loaded, field.name), getattr(made, field.name))
    merged = cache.merge(made, dataclasses.replace(made, source=None))
    for p in range(3):
        there = merged.codes[merged.source[p]] if merged.source[p] >= 0 else None
        assert there is None if p == 0 else np.array_equal(there, made.codes[made.source[p]])
        assert merged.source[p] < 0 or merged.source[p] in merged.pictures(p)


def test_caches_of_before_have_no_source(tmp_path):
    cache.save(tmp_path / "cache.npz", edits(source=False))
    with np.load(tmp_path / "cache.npz") as file:
        arrays = {name: file[name] for name in file if name != "source"}
    np.savez(tmp_path / "old.npz", **arrays)
    assert cache.load(tmp_path / "old.npz").source.tolist() == [-1]


def test_caches_that_do_not_go_together():
    longer = dataclasses.replace(edits(), codes=np.zeros((3, I + 1), np.int32))
    files = dataclasses.replace(edits(), pixels=cache.PictureFiles(["a.png"] * 3, 16))
    for other in (longer, files):
        with pytest.raises(UserError, match="several picture tokenizers, or in several ways"):
            cache.join([edits(), other])
    assert cache.join([files, files]).pixels.paths == ["a.png"] * 6


@pytest.fixture(scope="module")
def cached(world):
    """A cache of edits of the embedded world, by its tokenizer."""
    path, (vq, params) = world[0].parent / "edits.npz", loading.load_vq(world[0])
    cache.save(path, building.of_edits(*codec.in_groups(vq, params), vq.cfg.image_size, count=24, chunk=12))
    return path


def test_edits_of_the_world(cached):
    """Each group has its source, a copy that is wrong, most a right edit, all some wrong ones; nothing held out."""
    groups = cache.load(cached)
    assert len(groups) >= 22 and (groups.source == groups.start[:-1]).all()
    assert (groups.score[groups.source] == 0).all()
    right = [(groups.score[groups.pictures(p)] == 1).any() for p in range(len(groups))]
    assert np.mean(right) > 0.9
    assert set(np.unique(groups.score)) <= {0.0, 1.0, *np.unique(groups.score[groups.score <= 0.4])}
    for score, reason, caption, pixels in zip(
        groups.score, groups.reasons, groups.captions, groups.pixels, strict=True
    ):
        assert reason.startswith("Yes, " if score == 1 else "No, ")
        reading = verify.read(pixels)
        assert reasons.caption(reading) == caption and not text.shows_held_out(reading)


def test_stage_1_trains_on_edits(quick_compiles):
    config, _ = cli.parse_config(["--config", MICRO], "", workdir=False)
    kinds = (
        ("draw", 0, 1),
        ("judge", 0, 1),
        ("edit", 0, 2),
        ("edit", 1, 2),
        ("judge_edit", 0, 1),
        ("judge_edit", 1, 1),
    )
    config.update(edits="edits.npz", shares=(1, 1, 1, 0, 1), buckets=((120, kinds),), steps=2)
    settings.check_sft(config)
    mesh = sharding.mesh_of((1, 1, 1), jax.devices()[:1])
    groups = cache.join([edits(0, source=False), edits(5)])
    # as the commands run: optax promotes
    with jax.set_mesh(mesh), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        built, by_row = sft.build(config, MODEL, params(), mesh)
        data = train_sft.dataset_of(config, sft.buckets_of(config, mesh), by_row, MODEL, processor(), groups)
        job, losses = supervised(built, [params()], data, by_row), []
        state = job.begin()
        for number in range(2):
            state, told = job.advance(state, number, None)
            losses.append({name: float(value) for name, value in told.items()})
    for told in losses:
        assert np.isfinite(told["loss"]) and told["skipped"] == 0
        assert told["edit"] > 0.1 and told["draw"] > 0.1 and told["verdict"] > 0
        assert told["loss"] == pytest.approx(sum(told[name] for name in GROUPS), rel=1e-4)
    assert losses[0]["edit"] != losses[1]["edit"]


def test_a_model_s_own_edits_are_labelled(world, cached, tmp_path, monkeypatch):
    """Drawn from the sources, by the instructions; here every drawing is the source again."""
    groups, asked = cache.load(cached), []

    def copies(model, params, processor, requests, sampling, seed, number, batch, progress=None):
        asked.extend(requests)
        return groups.codes[groups.source], np.stack([np.asarray(request.source) for request in requests])

    monkeypatch.setattr(label_drawings, "paint", copies)
    flags = ["--checkpoint", "shapes-sft", "--samples", "1", "--out", str(tmp_path / "drawn.npz"), "--cache"]
    label_drawings.main([*flags, str(cached)])
    drawn = cache.load(tmp_path / "drawn.npz")
    assert [request.prompt for request in asked] == drawn.prompts.tolist() == groups.prompts.tolist()
    for p in range(len(drawn)):
        *before, last = drawn.pictures(p)
        assert len(before) == len(groups.pictures(p)) and drawn.source[p] == before[0]
        np.testing.assert_array_equal(drawn.codes[last], drawn.codes[drawn.source[p]])
        assert drawn.score[last] == 0 and drawn.reasons[last].startswith("No, ")
    assert "two commands" in refused(label_drawings.main, *flags, cached, world[1])


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"shares": (1, 1, 1, 0)}, "give config.shares a fifth number"),
        ({"edits": ""}, "set --config.edits"),
        ({"shares": (1, 1, 1, 0, 1, 1)}, "a fifth of edit"),
        ({"buckets": ((120, (("judge_edit", 0, 8),)),), "edits": ""}, "set --config.edits"),
    ],
)
def test_settings_of_edits(changed, words):
    config, _ = cli.parse_config(["--config", MICRO], "", workdir=False)
    config.update(edits="edits.npz", shares=(1, 1, 1, 0, 1), buckets=((120, (("edit", 0, 8),)),))
    settings.check_sft(config)
    with pytest.raises(UserError, match=words):
        config.update(changed)
        settings.check_sft(config)


def configured(cache="", edits="", categories=()):
    return ConfigDict({"cache": str(cache), "edits": str(edits), "categories": categories})


def test_edits_alone(world, cached):
    labelled = world[1]
    both = train_sft.groups_of(configured(labelled, cached))
    assert (both.source < 0).sum() == 24 and (both.source >= 0).sum() >= 22
    assert (train_sft.groups_of(configured(edits=cached)).source >= 0).all()
    assert (train_sft.groups_of(configured(labelled)).source < 0).all()
    for nothing in ("", ","):
        with pytest.raises(UserError, match="nothing to learn from: set --config.cache"):
            train_sft.groups_of(configured(nothing, nothing))
    with pytest.raises(UserError, match="not a cache.*or set --config.edits= for none"):
        train_sft.groups_of(configured(labelled, "none.npz"))
    assert len(train_sft.groups_of(configured(labelled, f"{cached},{cached}"))) == 2 * len(both) - 24


def test_draws(world, cached):
    groups = train_sft.groups_of(configured(world[1]))
    assert train_sft.draws_of(ConfigDict({"draws": ""}), groups) is None
    draws = train_sft.draws_of(ConfigDict({"draws": f"{world[1]},{world[1]}"}), groups)
    assert len(draws) == 2 * len(groups)
    bare = dataclasses.replace(groups, prompts=[*groups.prompts, "a circle"], start=[*groups.start, groups.start[-1]])
    cache.save(cached.with_name("bare.npz"), dataclasses.replace(bare, source=np.append(groups.source, -1)))
    assert len(train_sft.draws_of(ConfigDict({"draws": str(cached.with_name("bare.npz"))}), groups)) == len(groups) + 1
    assert train_sft.draws_of(ConfigDict({"draws": ","}), groups) is None
    with pytest.raises(UserError, match="no right picture of a prompt"):
        train_sft.draws_of(ConfigDict({"draws": str(cached)}), groups)
    longer = dataclasses.replace(groups, codes=np.zeros((len(groups.codes), I + 1), np.int32))
    with pytest.raises(UserError, match="another picture tokenizer"):
        train_sft.draws_of(ConfigDict({"draws": str(world[1]), "cache": "c.npz"}), longer)


def test_some_categories(world, cached):
    """Prompts of the categories that are named, and all edits."""
    every = train_sft.groups_of(configured(world[1], cached))
    names = [None if s >= 0 else text.parse(p).category for p, s in zip(every.prompts, every.source, strict=True)]
    some = train_sft.groups_of(configured(world[1], cached, ("colors", "counting")))
    kept = [p for p, name in zip(every.prompts, names, strict=True) if name in (None, "colors", "counting")]
    assert some.prompts.tolist() == kept and 0 < len(kept) < len(every)
    with pytest.raises(UserError, match="no prompt of .* is of config.categories"):
        only = cache.chosen(every, [n for n, name in enumerate(names) if name == "colors"])
        cache.save(cached.with_name("colors.npz"), only)
        train_sft.groups_of(configured(cached.with_name("colors.npz"), categories=("counting",)))

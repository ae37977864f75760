"""Caches of the embedded world, a chunk of prompts or edits at a time: of its data set, of fresh prompts, of right
pictures alone, of edits, and of edits that change nothing.

encode(pictures u8[P, K, side, side, 3]) -> codes i32[P, K, I] and decode(codes) -> such pictures are those of a picture
tokenizer (models/codec.in_groups). The same seed gives the same groups.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from janus_jax.data import cache, composed, labels, mended
from janus_jax.shapes import edit, edit_pairs, verify
from janus_jax.shapes.world import SHIPPED, World

MIXED = 1  # pictures of mixed codes per prompt
MENDED = 2  # wrong pictures per prompt that are mended
NEAR = 3  # near misses per edit


def mix_codes(rng, codes):
    """One picture's codes i32[I], mixed from those of a prompt's pictures i32[K, I]: the first part of one and the rest
    of another, or one with a small block of another."""
    first, second = codes[rng.permutation(len(codes))[:2]]
    side = round(len(first) ** 0.5)
    mixed = first.reshape(side, side).copy()
    if rng.random() < 0.5:
        cut = int(rng.integers(side, len(first) - side))
        mixed.reshape(-1)[cut:] = second[cut:]
    else:
        height, width = rng.integers(1, side // 2 + 1, 2)
        row, column = rng.integers(0, side - height + 1), rng.integers(0, side - width + 1)
        window = (slice(row, row + height), slice(column, column + width))
        mixed[window] = second.reshape(side, side)[window]
    return mixed.reshape(-1)


def with_mixed(rng, codes):
    """codes i32[P, K, I] of prompts' pictures, and MIXED further ones of each: i32[P, K + MIXED, I]."""
    mixed = np.stack([[mix_codes(rng, group) for _ in range(MIXED)] for group in codes])
    return np.concatenate([codes, mixed], axis=1)


def of_data_set(encode, decode, source, seed: int = 0, chunk: int = 64, world: World = SHIPPED) -> cache.Groups:
    """Groups of a `shapes` data source, `chunk` prompts at a time."""
    rng, parts = np.random.default_rng(seed), []

    def reproduce(pictures):
        codes = encode(pictures[None])
        return codes[0], decode(codes)[0]

    for begin in tqdm(range(0, len(source), chunk), desc="prompts", unit=f"x{chunk}"):
        examples = [source[i] for i in range(begin, min(begin + chunk, len(source)))]
        pictures = np.stack([example["pictures"]["image"] for example in examples])  # [P, K, h, w, 3]
        codes = with_mixed(rng, encode(pictures))
        prompts = [example["prompt"].decode() for example in examples]
        groups = labels.label(rng, prompts, codes, decode(codes), world)
        groups = mended.with_mended(rng, groups, reproduce, MENDED, world)
        parts.append(cache.packed(groups))
    return cache.join(parts)


def of_prompts(
    encode,
    decode,
    side: int,
    count: int,
    seed: int = 0,
    chunk: int = 64,
    world: World = SHIPPED,
    ordered: bool = False,
) -> cache.Groups:
    """Groups of `count` fresh prompts with right and wrong pictures, labelled by their scenes; `chunk` at a time.
    ordered: see composed.scenes."""

    def part(rng, prompts):
        return composed.judged(rng, prompts, encode, decode, chunk, side, world, ordered)

    return _of_fresh_prompts(part, count, seed, chunk, world)


def of_draws(encode, side: int, count: int, seed: int = 0, chunk: int = 256, world: World = SHIPPED) -> cache.Groups:
    """Groups of `count` fresh prompts with one right picture each, see composed.draws; `chunk` at a time."""

    def part(rng, prompts):
        return composed.draws(rng, prompts, encode, chunk, side, world)

    return _of_fresh_prompts(part, count, seed, chunk, world)


def _of_fresh_prompts(part, count, seed, chunk, world):
    rng, parts = np.random.default_rng(seed), []
    for begin in tqdm(range(0, count, chunk), desc="prompts", unit=f"x{chunk}"):
        parts.append(part(rng, [composed.fresh_prompt(rng, world) for _ in range(min(chunk, count - begin))]))
    return cache.join(parts)


def of_edits(
    encode,
    decode,
    side: int,
    count: int,
    seed: int = 0,
    chunk: int = 64,
    world: World = SHIPPED,
    known: bool = False,
    kinds: Sequence[str] = edit.KINDS,
    objects: int | None = None,
    near: int = NEAR,
) -> cache.Groups:
    """Groups of `count` random edits of some kinds, of pictures of so many objects (None = of any number), unless known
    less the few whose source does not survive its codes; `chunk` at a time. known: labelled by their scenes, and so
    without pictures of mixed codes. near: near misses of each."""
    rng, parts = np.random.default_rng(seed), []
    for begin in tqdm(range(0, count, chunk), desc="edits", unit=f"x{chunk}"):
        drawn = [
            edit.random_edit(rng, str(rng.choice(kinds)), world=world, objects=objects)
            for _ in range(min(chunk, count - begin))
        ]
        wrong = [[edit_pairs.near_miss(rng, e, world) for _ in range(near)] for e in drawn]
        pictures = [edit.draw(e, side, rng, others, world) for e, others in zip(drawn, wrong, strict=True)]
        codes = encode(np.array(pictures))
        readings = None
        if known:
            scenes = [(e.source, e.target, *others) for e, others in zip(drawn, wrong, strict=True)]
            readings = [verify.Reading(one.items) for of_edit in scenes for one in of_edit]
        else:
            codes = with_mixed(rng, codes)
        pixels = decode(codes)
        instructions = [e.instruction for e in drawn]
        groups = labels.label_edits(rng, instructions, pixels[:, 0], codes, pixels, world, readings)
        found = np.flatnonzero(np.diff(groups.start))  # a source that is kept is the first of its group
        first = groups.start[:-1][found]
        start = np.append(first, groups.start[-1])
        groups = dataclasses.replace(groups, prompts=groups.prompts[found], start=start, source=first)
        parts.append(cache.packed(groups))
    return cache.join(parts)


def of_voids(
    encode, decode, side: int, count: int, seed: int = 0, chunk: int = 128, world: World = SHIPPED
) -> cache.Groups:
    """Groups of `count` edits of shapes that their pictures do not show, see composed.voids; `chunk` at a time. Raises
    ValueError for a world of one shape."""
    rng, parts = np.random.default_rng(seed), []
    for begin in tqdm(range(0, count, chunk), desc="edits", unit=f"x{chunk}"):
        drawn = [edit_pairs.void_edit(rng, world) for _ in range(min(chunk, count - begin))]
        parts.append(composed.voids(rng, drawn, encode, decode, chunk, side, world))
    return cache.join(parts)

"""What stage 1 learns from beside labelled pictures of prompts, on the embedded world: wrong pictures with their faults
mended, and drawings judged by prompts that differ from theirs in one fact."""

import dataclasses

import numpy as np

from janus_jax.data import cache, labels
from janus_jax.shapes import mend, text, verify
from janus_jax.shapes.render import render
from janus_jax.shapes.world import SHIPPED, World

CHUNK = 64  # pictures that are encoded at a time


def with_mended(rng, groups: cache.Groups, reproduce, each: int, world: World = SHIPPED) -> cache.Groups:
    """The groups with further pictures, right ones: for `each` wrong pictures of a prompt, as far as there are so many,
    what the verifier reads in it, mended (shapes/mend.py), as the picture tokenizer reproduces it. Groups.mended says
    which belongs to which. reproduce(pictures u8[CHUNK,h,w,3]) -> (codes i32[CHUNK,I], pictures u8[CHUNK,h,w,3]): what
    the tokenizer makes of them. Groups of edits stay as they are."""
    owner, wrong, drawn = [], [], []
    for p in np.flatnonzero(groups.source < 0):
        ask, pictures = text.parse(str(groups.prompts[p]), world), groups.pictures(p)
        for n in rng.permutation(pictures[groups.score[pictures] < 0.5])[:each]:
            scene = mend.mend(rng, ask, verify.read(groups.pixels[n], world), world)
            if scene is not None:
                owner.append(p)
                wrong.append(n)
                drawn.append(render(scene, groups.pixels.shape[1], world=world))
    if not drawn:
        return groups
    codes, pixels = _reproduced(np.stack(drawn), reproduce)
    new, kept = labels.label_each(rng, groups.prompts, np.array(owner), codes, pixels, world)
    right = new.score >= verify.RIGHT
    new, wrong = _some(new, right), np.array(wrong)[kept][right]
    if isinstance(groups.pixels, cache.PackedPictures):
        new = cache.packed(new)
    merged = cache.merge(groups, new)
    # a prompt's new pictures lie behind its others
    counts, more = np.diff(groups.start), np.diff(new.start)
    old_place = np.arange(len(groups.codes)) + np.repeat(new.start[:-1], counts)
    new_place = np.arange(len(new.codes)) + np.repeat(groups.start[1:], more)
    mended = merged.mended.copy()
    mended[old_place[wrong]] = new_place
    return dataclasses.replace(merged, mended=mended)


def _reproduced(pictures, reproduce):
    """The same of any number of pictures."""
    parts = []
    for begin in range(0, len(pictures), CHUNK):
        part = pictures[begin : begin + CHUNK]
        fill = np.concatenate([part, np.repeat(part[:1], CHUNK - len(part), axis=0)])  # one program for all
        parts.append(tuple(array[: len(part)] for array in reproduce(fill)))
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def _some(groups, keep):
    """The groups with some of their pictures, bool[N]; none may be another's source or mend another."""
    arrays = {name: getattr(groups, name)[keep] for name in ("codes", "pixels", "score", "reasons", "captions")}
    start = np.concatenate([[0], np.cumsum(keep)])[groups.start]
    return cache.Groups(prompts=groups.prompts, start=start, **arrays)


def by_changed_prompts(rng, groups: cache.Groups, world: World = SHIPPED) -> cache.Groups:
    """Groups of one picture each, of each prompt that can be changed in one fact (shapes/mend.changed) to another
    training prompt: a picture of the prompt, right where there is one, labelled for the other."""
    prompts, pictures = [], []
    for p in np.flatnonzero((groups.source < 0) & (np.diff(groups.start) > 0)):
        changed = mend.changed(rng, text.parse(str(groups.prompts[p]), world))
        prompt = None if changed is None else text.phrase(rng, changed)
        if prompt is not None and text.split_of(prompt, world) == "train":
            there = groups.pictures(p)
            right = there[groups.score[there] >= verify.RIGHT]
            prompts.append(prompt)
            pictures.append(int(rng.choice(right if len(right) else there)))
    pictures = np.array(pictures, np.int64)
    owner, pixels = np.arange(len(prompts)), groups.pixels[pictures]
    return labels.label_each(rng, prompts, owner, groups.codes[pictures], pixels, world)[0]

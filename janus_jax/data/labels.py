"""Labels of pictures of the embedded world: the verifier's score, a truthful reason and a caption."""

import numpy as np

from janus_jax.data import cache
from janus_jax.shapes import edit, edit_reason, text, verify


def label(rng, prompts, codes, pixels) -> cache.Groups:
    """Scores and explains decoded pictures u8[P, K, h, w, 3] with codes i32[P, K, I]; pictures that show a held-out
    combination are left out."""

    def judge(p):
        ask = text.parse(str(prompts[p]))
        return lambda reading: (verify.score(ask, reading), text.reason(rng, ask, reading))

    return _groups(prompts, [judge(p) for p in range(len(prompts))], codes, pixels)


def label_edits(rng, instructions, sources, codes, pixels) -> cache.Groups:
    """The same of edits of source pictures u8[P, h, w, 3]. An instruction has no pictures where its source does not
    show what it is about, or shows what is held out."""

    def judge(p):
        source = verify.read(sources[p])
        try:
            asked = edit.parse(str(instructions[p]), source)
        except ValueError:
            return None
        if text.shows_held_out(source) or not edit.applies(asked, source):
            return None
        return lambda reading: (
            edit.score(asked, source, reading),
            edit_reason.reason(rng, asked, source, reading),
        )

    return _groups(instructions, [judge(p) for p in range(len(instructions))], codes, pixels)


def _groups(prompts, judges, codes, pixels):
    """judges: of each prompt a function of a reading, which gives score and reason; None: no picture is kept."""
    start, kept, scores, reasons, captions = [0], [], [], [], []
    for p, judge in enumerate(judges):
        for k in range(codes.shape[1] if judge else 0):
            reading = verify.read(pixels[p, k])
            if text.shows_held_out(reading):
                continue
            kept.append((p, k))
            score, reason = judge(reading)
            scores.append(score)
            reasons.append(reason)
            captions.append(text.caption(reading))
        start.append(len(kept))
    rows, columns = np.array(kept, np.int64).reshape(-1, 2).T
    return cache.Groups(
        prompts=prompts,
        start=np.array(start),
        codes=codes[rows, columns].astype(np.int32),
        pixels=pixels[rows, columns],
        score=np.array(scores, np.float32),
        reasons=reasons,
        captions=captions,
    )

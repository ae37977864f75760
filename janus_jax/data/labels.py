"""Labels of pictures of the embedded world: the verifier's score, a truthful reason and a caption."""

import numpy as np

from janus_jax.data import cache
from janus_jax.shapes import text, verify


def label(rng, prompts, codes, pixels) -> cache.Groups:
    """Scores and explains decoded pictures u8[P, K, h, w, 3] with codes i32[P, K, I]; pictures that show a held-out
    combination are left out."""
    start, kept, scores, reasons, captions = [0], [], [], [], []
    for p, prompt in enumerate(prompts):
        ask = text.parse(str(prompt))
        for k in range(codes.shape[1]):
            reading = verify.read(pixels[p, k])
            if text.shows_held_out(reading):
                continue
            kept.append((p, k))
            scores.append(verify.score(ask, reading))
            reasons.append(text.reason(rng, ask, reading))
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

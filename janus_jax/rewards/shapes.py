"""The embedded world's judge: the verifier, which reads pictures."""

import numpy as np

from janus_jax.errors import UserError
from janus_jax.rewards.judge import Judged
from janus_jax.shapes import text, verify


def judge(prompts, images) -> Judged:
    """The verifier's scores of square pictures; none is ever missing. Raises UserError for a prompt that is not of this
    world."""
    scores = []
    for prompt, image in zip(prompts, images, strict=True):
        try:
            ask = text.parse(prompt)
        except ValueError as error:
            raise UserError(f"{error}: config.reward.kind='shapes' judges the embedded world alone") from error
        scores.append(verify.score(ask, verify.read(np.asarray(image.convert("RGB")))))
    return Judged(np.array(scores, np.float32), ("",) * len(scores))

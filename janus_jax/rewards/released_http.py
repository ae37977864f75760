"""A judge behind the HTTP protocol of the released code: one tensor of PNG bytes, one of captions, one score."""

import numpy as np

from janus_jax.rewards.endpoint import Endpoint, png
from janus_jax.rewards.judge import Judge, Judged


def make_judge(endpoint: Endpoint) -> Judge:
    """A judge that asks the endpoint once per picture. The released code takes 0 for a reward after its fifth failure;
    here it is missing."""

    def body(job):
        prompt, image = job
        return {
            "features": {},
            "tensorFeatures": {
                "images": {"shapes": [1], "byteValues": png(image)},
                "captions": {"shapes": [1], "stringValues": [prompt]},
            },
        }

    def judge(prompts, images) -> Judged:
        outcomes = endpoint.ask(list(zip(prompts, images, strict=True)), body, score_of)
        return Judged(np.array([score for score, _ in outcomes], np.float32), tuple(error for _, error in outcomes))

    return judge


def score_of(answer):
    """The score in an answer {"success": true, "resultMap": {"scores": s}}, s a number or a list of one. Raises
    ValueError where there is no success, LookupError or TypeError where the answer has another form."""
    if answer["success"] is not True:
        raise ValueError(f"success is {answer['success']!r}")
    score = answer["resultMap"]["scores"]
    if isinstance(score, list):
        (score,) = score
    return score

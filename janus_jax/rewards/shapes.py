"""The embedded world's judge: the verifier, which reads pictures."""

import numpy as np

from janus_jax.errors import UserError
from janus_jax.rewards.judge import FOLLOWING, MATCH, PRESERVING, Judged, are_edits
from janus_jax.shapes import edit, text, verify


def judge(requests, pictures) -> Judged:
    """The verifier's scores of square pictures; none is ever missing. Raises UserError for a prompt that is not of this
    world, or an edit whose source does not show what its instruction is about."""
    score, names = (_of_edit, (FOLLOWING, PRESERVING)) if are_edits(requests) else (_of_prompt, (MATCH,))
    try:
        scores = [score(request, read(picture)) for request, picture in zip(requests, pictures, strict=True)]
    except ValueError as error:
        raise UserError(f"{error}: config.reward.kind='shapes' judges the embedded world alone") from error
    return Judged(dict(zip(names, np.array(scores, np.float32).reshape(-1, len(names)).T, strict=True)))


def read(picture) -> verify.Reading:
    """What a square PIL picture shows."""
    return verify.read(np.asarray(picture.convert("RGB")))


def _of_prompt(request, reading):
    return (verify.score(text.parse(request.prompt), reading),)


def _of_edit(request, reading):
    source = read(request.source)
    asked = edit.parse(request.prompt, source)
    return edit.following(asked, source, reading), edit.preserving(asked, source, reading)

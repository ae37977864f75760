"""The embedded world's judge: the verifier, which reads pictures."""

import numpy as np

from janus_jax.errors import UserError
from janus_jax.rewards.judge import FOLLOWING, MATCH, PRESERVING, WHOLE, Judged, are_edits
from janus_jax.shapes import edit, text, verify
from janus_jax.shapes.world import SHIPPED, World


def judge(requests, pictures, world: World = SHIPPED) -> Judged:
    """The verifier's scores of square pictures; none is ever missing. Raises UserError for a prompt that is not of the
    world, or an edit whose source does not show what its instruction is about."""
    score, names = (_of_edit, (FOLLOWING, PRESERVING, WHOLE)) if are_edits(requests) else (_of_prompt, (MATCH,))
    try:
        scores = [
            score(request, read(picture, world), world) for request, picture in zip(requests, pictures, strict=True)
        ]
    except ValueError as error:
        raise UserError(f"{error}: config.reward.kind='shapes' judges the embedded world alone") from error
    return Judged(dict(zip(names, np.array(scores, np.float32).reshape(-1, len(names)).T, strict=True)))


def read(picture, world: World = SHIPPED) -> verify.Reading:
    """What a square PIL picture shows."""
    return verify.read(np.asarray(picture.convert("RGB")), world)


def _of_prompt(request, reading, world):
    return (verify.score(text.parse(request.prompt, world), reading),)


def _of_edit(request, reading, world):
    source = read(request.source, world)
    asked = edit.parse(request.prompt, source, world)
    return tuple(score(asked, source, reading) for score in (edit.following, edit.preserving, edit.score))

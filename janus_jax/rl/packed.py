"""Trajectories as arrays of fixed shapes, rows side by side, so that a checkpoint can hold them on any mesh.

B trajectories of at most R rounds, M words at most, I codes:

    rounds i32[B]; codes, context_codes i32[B,R,I]; code_logps f32[B,R,I]; images u8[B,R,h,w,3]; verdict bool[B,R];
    p_yes f32[B,R]; words i32[B,R]; reason_ids i32[B,R,M]; reason_logps f32[B,R,M]

What lies beyond a trajectory's rounds or a reason's words is zero.
"""

import jax
import numpy as np
from PIL import Image

from janus_jax.sampling.introspect import Round, Trajectory


def pack(trajectories, rounds: int, reason_tokens: int) -> dict[str, np.ndarray]:
    """The arrays of trajectories that all have at most `rounds` rounds of `reason_tokens` words."""
    first = trajectories[0].rounds[0]
    packed = {
        name: np.zeros((len(trajectories), *form.shape), form.dtype)
        for name, form in form_of(rounds, reason_tokens, len(first.codes), first.image.size).items()
    }
    for i, trajectory in enumerate(trajectories):
        packed["rounds"][i] = len(trajectory.rounds)
        for turn, shot in enumerate(trajectory.rounds):
            for name in ("codes", "context_codes", "code_logps", "verdict", "p_yes"):
                packed[name][i, turn] = getattr(shot, name)
            packed["images"][i, turn] = np.asarray(shot.image)
            packed["words"][i, turn] = count = len(shot.reason_ids)
            packed["reason_ids"][i, turn, :count] = shot.reason_ids
            packed["reason_logps"][i, turn, :count] = shot.reason_logps
    return packed


def unpack(packed, prompts, samples: int, processor) -> list[Trajectory]:
    """Undoes `pack`. prompts: as they were drawn, `samples` trajectories of each."""
    names = ("codes", "context_codes", "code_logps")

    def shot(i, turn):
        count = packed["words"][i, turn]
        ids = packed["reason_ids"][i, turn, :count]
        return Round(
            image=Image.fromarray(packed["images"][i, turn]),
            verdict=bool(packed["verdict"][i, turn]),
            p_yes=float(packed["p_yes"][i, turn]),
            reason=processor.decode(ids),
            reason_ids=ids,
            reason_logps=packed["reason_logps"][i, turn, :count],
            **{name: packed[name][i, turn] for name in names},
        )

    return [
        Trajectory(prompts[i // samples], i % samples, [shot(i, turn) for turn in range(count)])
        for i, count in enumerate(packed["rounds"].tolist())
    ]


def form_of(rounds: int, reason_tokens: int, codes: int, size: tuple[int, int]) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of one row; size: (width, height) of a picture."""
    R, M, I, (w, h) = rounds, reason_tokens, codes, size

    def form(dtype, *shape):
        return jax.ShapeDtypeStruct(shape, dtype)

    return {
        "rounds": form(np.int32),
        "codes": form(np.int32, R, I),
        "context_codes": form(np.int32, R, I),
        "code_logps": form(np.float32, R, I),
        "images": form(np.uint8, R, h, w, 3),
        "verdict": form(np.bool_, R),
        "p_yes": form(np.float32, R),
        "words": form(np.int32, R),
        "reason_ids": form(np.int32, R, M),
        "reason_logps": form(np.float32, R, M),
    }

"""Introspection as it happens: the trajectories again and again, while their pictures and words come into being."""

from collections.abc import Iterator

import numpy as np
from PIL import Image

from janus_jax.errors import UserError
from janus_jax.sampling import contexts
from janus_jax.sampling.contexts import Drawing
from janus_jax.sampling.density import Sampling
from janus_jax.sampling.introspect import drawing_of, reencodes
from janus_jax.sampling.rollout import Round, Trajectory
from janus_jax.sampling.rounds import Group, Part, bucket, count_words, drawn, fresh, pixels_of
from janus_jax.sequences import images
from janus_jax.sequences.request import as_requests

DEFAULT_SAMPLING = Sampling()


def stream(
    model,
    params,
    processor,
    prompts,
    samples: int = 4,
    rounds: int = 3,
    sampling: Sampling = DEFAULT_SAMPLING,
    seed: int = 0,
    context: str = "codes",
    batch: int = 64,
    always: bool = False,
    stride: int | None = None,
) -> Iterator[list[Trajectory]]:
    """`introspect`, whose arguments these are: yields what there is of the trajectories after every `stride` codes
    (None: a row of them) and after every word, and at last what `introspect` returns.

    The last round of a trajectory may be unfinished. Its codes and log-probabilities are then those that are drawn, its
    image is grey below the rows of codes that are whole and, above, close to what it will be (the VQ decoder sees what
    is below as well); verdict and p_yes are None until the first word. Trajectories whose chunk has not begun are
    missing, or have no rounds. To stop, close the generator. Raises UserError as `introspect` does, at the first step.
    """
    if samples < 1:
        raise UserError(f"samples must be at least 1, not {samples}")
    work = [(request, sample) for request in as_requests(prompts) for sample in range(samples)]
    drawing = drawing_of(
        model,
        params,
        processor,
        [request for request, _ in work],
        sampling,
        rounds,
        seed,
        batch=min(batch, bucket(len(work), 4)),
        reencode=reencodes(context),
        always=always,
    )
    done, stride = [], stride or _width(drawing)
    for group in fresh(drawing, work):
        ended: list[Group] = []
        for turn in range(rounds):
            if group is None:
                break
            for step in drawn(drawing, group, turn, contexts, ended, stride):
                if isinstance(step, Part):
                    yield done + _in_order(_numbered(drawing, ended) + _so_far(drawing, group, step))
            group = step
        done += _in_order(_numbered(drawing, ended))
    yield done


def _numbered(drawing: Drawing, groups: list[Group]) -> list[tuple[int, Trajectory]]:
    """The trajectories of groups with their numbers."""
    return [
        pair
        for group in groups
        for pair in zip(group.numbers, group.record.trajectories(drawing.processor), strict=True)
    ]


def _in_order(numbered) -> list[Trajectory]:
    return [trajectory for _, trajectory in sorted(numbered, key=lambda pair: pair[0])]


def _width(drawing: Drawing) -> int:
    """Codes in a row of a picture."""
    return drawing.model.cfg.vq.grid


def _so_far(drawing: Drawing, group: Group, part: Part) -> list[tuple[int, Trajectory]]:
    """The group's trajectories, numbered, with the part at their ends."""
    numbered = _numbered(drawing, [group])
    pixels = _unfinished(drawing, part.codes) if part.pixels is None else part.pixels
    for place, (_, trajectory) in enumerate(numbered):
        trajectory.rounds.append(_round(drawing, part, place, pixels[place]))
    return numbered


def _round(drawing: Drawing, part: Part, place: int, pixels) -> Round:
    ids, logps, verdict, p_yes = np.zeros(0, np.int32), np.zeros(0, np.float32), None, None
    if part.ids is not None:
        words = count_words(part.ids, drawing.grammar.special)[place]
        ids, logps, p_yes = part.ids[place, :words], part.word_logps[place, :words], float(part.p_yes[place])
        verdict = bool(ids[0] == drawing.grammar.special.yes)
    return Round(
        codes=part.codes[place],
        image=Image.fromarray(pixels),
        verdict=verdict,
        p_yes=p_yes,
        reason=drawing.processor.decode(ids).rstrip("\ufffd"),  # half of a character waits for the rest of it
        reason_ids=ids,
        code_logps=part.logps[place],
        reason_logps=logps,
        context_codes=part.codes[place],
    )


def _unfinished(drawing: Drawing, codes) -> np.ndarray:
    """Pictures u8[B,h,w,3] of the first codes i32[B,j] of each: grey below the rows that are whole. For the decoder the
    last of them is repeated to the end."""
    B, j = codes.shape
    width, side = _width(drawing), drawing.model.cfg.vq.image_size
    rows = j // width
    pixels = np.full((B, side, side, 3), images.GREY, np.uint8)
    if rows:
        last = codes[:, (rows - 1) * width : rows * width]
        whole = np.concatenate([codes[:, : rows * width], np.tile(last, (1, width - rows))], axis=1)
        height = rows * side // width
        pixels[:, :height] = pixels_of(drawing, whole.astype(np.int32))[:, :height]
    return pixels

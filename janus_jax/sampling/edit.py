"""Editing: a source picture and an instruction in, edited pictures out; the source returned with the edit in its place.

An edit is drawn from the source's codes: the model paints from its centre, a square, at the model's own size, and
judges an edit beside that square. What lies outside of it is not seen and stays as it is.
"""

from collections.abc import Sequence

from PIL import Image

from janus_jax.errors import UserError
from janus_jax.sampling.density import Sampling
from janus_jax.sampling.introspect import introspect
from janus_jax.sampling.rollout import Trajectory
from janus_jax.sequences import images
from janus_jax.sequences.request import Request


def edit(
    model,
    params,
    processor,
    image: Image.Image,
    instruction: str | Sequence[str],
    samples: int = 4,
    rounds: int = 1,
    sampling: Sampling | None = None,
    seed: int = 0,
    batch: int = 64,
) -> list[Trajectory]:
    """`samples` edits of a picture; with `rounds` > 1 the model judges each edit and draws it again after a No.

    image: PIL, of any size. instruction: what to change, or several, which are turns: each edits the final picture of
    the turn before, sample by sample, and the last turn's trajectories are returned. sampling: None = as the checkpoint
    asks for; guidance acts on the instruction alone, the source stays. The pictures are squares of the model's size;
    `placed_back` puts one where it was cut from. Each trajectory's request holds its source, the square. Raises
    UserError for an empty or overlong instruction.
    """
    instructions = [instruction] if isinstance(instruction, str) else list(instruction)
    if not instructions:
        raise UserError("there is no instruction: say what to change")
    if samples < 1:
        raise UserError(f"samples must be at least 1, not {samples}")
    source = images.centre(images.rgb(image))
    first, *later = instructions
    settings = {"rounds": rounds, "sampling": sampling, "seed": seed, "batch": batch}
    trajectories = introspect(model, params, processor, [Request(first, source)], samples, **settings)
    for turn in later:
        requests = [Request(turn, t.rounds[t.final].image) for t in trajectories]
        trajectories = introspect(model, params, processor, requests, 1, **settings)
    return trajectories


def placed_back(source: Image.Image, edited: Image.Image) -> Image.Image:
    """The source at its own size with the edited square in the place that it was cut from."""
    side = min(source.size)
    corner = tuple((length - side) // 2 for length in source.size)
    result = images.rgb(source)
    result.paste(edited.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), corner)
    return result

"""What an evaluation asks: prompts, or edits, of a split, with their categories; and the figures of edits."""

import dataclasses

import numpy as np
from PIL import Image

from janus_jax.results.scores import clustered
from janus_jax.rewards import shapes
from janus_jax.rewards.judge import FOLLOWING, PRESERVING
from janus_jax.sampling import decode
from janus_jax.sequences import images
from janus_jax.sequences.request import Request
from janus_jax.shapes import edit_pairs, text
from janus_jax.shapes.world import SHIPPED, World

# How many of each category, unless it is said. Of additions there are not a hundred; the questions' module is answers.
PER_CATEGORY = {"shapes": 100, "shapes_redraw": 100, "shapes_edit": 60, "shapes_questions": 100}
EDIT_SCORES = (FOLLOWING, PRESERVING, "both")


@dataclasses.dataclass(frozen=True)
class Suite:
    """requests, and the category of each one's text, which none shares with another; combinations: of each prompt what
    its failure has in common with others' (text.combination); targets: of edits the true pictures u8[N, side, side,
    3]; world: what the requests are of."""

    requests: list[Request]
    categories: dict[str, str]
    combinations: dict[str, str] | None = None
    targets: np.ndarray | None = None
    world: World = SHIPPED


def suite(name: str, per_category: int, world: World = SHIPPED, split: str = "test") -> Suite:
    """The suite "shapes", "shapes_redraw" or "shapes_edit", with so many of each category, of a split. Raises
    ValueError where one has fewer."""
    if name != "shapes_edit":
        prompts = text.held_out_prompts(per_category, split=split, world=world)
        asks = {prompt: text.parse(prompt, world) for prompt in prompts}
        return Suite(
            [Request(prompt) for prompt in prompts],
            {prompt: ask.category for prompt, ask in asks.items()},
            {prompt: text.combination(ask, world) for prompt, ask in asks.items()},
            world=world,
        )
    edits, sources, targets = zip(*edit_pairs.edits_of(split, per_category, world=world), strict=True)
    requests = [Request(e.instruction, Image.fromarray(s)) for e, s in zip(edits, sources, strict=True)]
    return Suite(requests, {e.instruction: e.kind for e in edits}, targets=np.stack(targets), world=world)


def edit_figures(outcomes, categories) -> dict[str, dict]:
    """{kind: {"following", "preserving", "both": (mean, standard error)}} of the chosen pictures. outcomes: dicts with
    "prompt", "final" and, a list over the rounds each, "following" and "preserving"; both: the share of pictures where
    each of them is 1."""
    chosen = [(one["following"][one["final"]], one["preserving"][one["final"]]) for one in outcomes]
    prompts = [one["prompt"] for one in outcomes]
    return _by_kind(prompts, np.array(chosen), categories)


def edit_bound(model, params, asked: Suite) -> dict[str, dict]:
    """The same figures of the true pictures, encoded and decoded: what no model with this tokenizer is to exceed."""
    size = len(asked.targets) // len(set(asked.categories.values()))  # one program for all parts
    parts = []
    for begin in range(0, len(asked.targets), size):
        codes = decode.encode_codes(model, params, asked.targets[begin : begin + size] / np.float32(127.5) - 1)
        parts.append(images.to_uint8(decode.decode_codes(model, params, codes)))
    judged = shapes.judge(asked.requests, [Image.fromarray(picture) for picture in np.concatenate(parts)], asked.world)
    values = np.stack([judged[FOLLOWING], judged[PRESERVING]], axis=1)
    return _by_kind([request.prompt for request in asked.requests], values, asked.categories)


def _by_kind(prompts, values, categories):
    kinds = np.array([categories[prompt] for prompt in prompts])
    columns = np.column_stack([values, (values == 1).all(1)]).T
    return {
        kind: {
            name: clustered(column[kinds == kind], np.array(prompts)[kinds == kind])
            for name, column in zip(EDIT_SCORES, columns, strict=True)
        }
        for kind in dict.fromkeys(categories.values())
    }

"""The requests of a step of stage 2: functions of the configuration's seed and the step's number, nothing else."""

import functools
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from janus_jax.data import prompts as prompt_file
from janus_jax.data.edits import Edit
from janus_jax.errors import UserError
from janus_jax.sequences import images
from janus_jax.sequences.grammar import Grammar
from janus_jax.sequences.request import Request
from janus_jax.shapes import edit_pairs, text
from janus_jax.shapes.world import SHIPPED, World

LEAST_WEIGHT = 0.05  # of a category in which nothing fails


class Files(NamedTuple):
    """Where requests come from: the prompts of a file, and the edits of one; None: the embedded world's."""

    prompts: list[str] | None = None
    edits: list[Edit] | None = None


def weights_of(paths) -> dict[str, float] | None:
    """How often each category is asked for: in proportion to the share of finals that failed there in some evaluations
    (files of `evaluate`), the mean of them, and LEAST_WEIGHT at least. None where there are none: equally often. Raises
    UserError for a file that is no evaluation of prompts."""
    failed = {name: [] for name in text.CATEGORIES}
    for path in paths:
        try:
            report = json.loads(Path(path).read_text(encoding="utf-8"))
            for name, values in failed.items():
                values.append(1 - float(report["categories"][name]["final"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} is not an evaluation of the embedded world's prompts: make it with janus_jax.evaluate, or "
                "leave it out of config.failures"
            ) from error
    return {name: max(float(np.mean(values)), LEAST_WEIGHT) for name, values in failed.items()} if paths else None


def counts(config) -> tuple[int, int]:
    """How many prompts and how many edits a step asks for, as config.task and config.edit_share say."""
    edits = {"draw": 0.0, "edit": 1.0, "both": config.edit_share}[config.task] * config.prompts_per_step
    return config.prompts_per_step - round(edits), round(edits)


def sources(config) -> int:
    """Source pictures of a request at most, 0 or 1."""
    return int(counts(config)[1] > 0)


def check_files(config, files: Files, grammar: Grammar) -> None:
    """Raises UserError where a prompt or an instruction of a file has more than config.prompt_tokens."""
    drawn = [Request(prompt) for prompt in files.prompts or ()]
    blank = Image.new("RGB", (1, 1))
    edits = [Request(edit.instructions[0], blank) for edit in files.edits or ()]
    for path, requests in ((config.prompts, drawn), (config.edit_prompts, edits)):
        for number, request in enumerate(requests, start=1):
            length = _length(grammar, request)
            if length > config.prompt_tokens:
                raise UserError(
                    f"prompt {number} of {path} has {length} tokens: set --config.prompt_tokens={length} or shorten it"
                )


def of_step(
    config,
    grammar: Grammar,
    files: Files,
    side: int,
    number: int,
    attempt: int = 0,
    world: World = SHIPPED,
    weights: dict[str, float] | None = None,
) -> tuple[list[Request], int]:
    """(the requests of step `number`, prompts before edits; the seed to draw them with). side: pixels along one side of
    the world's source pictures, which are no smaller than the world's own; another attempt has other requests; weights:
    of the world's categories, see weights_of. Raises UserError for a picture that has gone."""
    rng = np.random.default_rng([config.seed, number, attempt] if attempt else [config.seed, number])
    draws, edits = counts(config)
    if files.prompts is None:
        asked = _of_the_world(config, grammar, rng, draws, world, weights)
    else:
        asked = [Request(files.prompts[i]) for i in _places(config, rng, len(files.prompts), draws, number, attempt)]
    seed = int(rng.integers(2**31))
    rng = np.random.default_rng([config.seed, number, attempt, 1])
    if files.edits is None:
        asked += [_edit_of_the_world(config, grammar, rng, max(side, world.side), world) for _ in range(edits)]
    else:
        some = [files.edits[i] for i in _places(config, rng, len(files.edits), edits, number, attempt)]
        asked += [Request(edit.instructions[0], images.centre(images.read(edit.image))) for edit in some]
    return asked, seed


def _places(config, rng, total, count, number, attempt):
    """Which of a file's `total` lines a step takes."""
    if attempt:  # the file's order is that of first attempts
        return rng.choice(total, count, replace=total < count)
    return prompt_file.of_step(total, count, config.seed, number)


def _of_the_world(config, grammar, rng, count, world, weights):
    asked = []
    for freely in rng.random(count) < config.free_prompts:
        draw = functools.partial(_prompt, rng, freely, world, weights)
        for _ in range(20):  # twice in a step it would be the same group twice, drawn alike
            request = _short(config, grammar, draw)
            if request not in asked:
                break
        asked.append(request)
    return asked


def _category(rng, freely, weights):
    """A category by its weight; None leaves the choice to the prompts."""
    if weights is None:
        return None
    names = [name for name in weights if not freely or name in text.FREE_CATEGORIES]
    shares = np.array([weights[name] for name in names])
    return str(rng.choice(names, p=shares / shares.sum()))


def _prompt(rng, freely, world, weights):
    draw = text.free_prompt if freely else text.train_prompt
    return Request(draw(rng, _category(rng, freely, weights), world))


def _edit_of_the_world(config, grammar, rng, side, world):
    def edit():
        drawn, source, _ = edit_pairs.clear_edit(rng, side=side, world=world)
        return Request(drawn.instruction, Image.fromarray(source))

    return _short(config, grammar, edit)


def _short(config, grammar, draw):
    """draw() of at most config.prompt_tokens; longer ones are left out. Raises UserError where all are longer."""
    for _ in range(100):
        request = draw()
        length = _length(grammar, request)
        if length <= config.prompt_tokens:
            return request
    raise UserError(
        f"prompts have more than {config.prompt_tokens} tokens: set --config.prompt_tokens={length} or more"
    )


def _length(grammar, request) -> int:
    return sum(map(len, grammar.prompt(request)))

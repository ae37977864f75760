"""The requests of a step of stage 2: functions of the configuration's seed and the step's number, nothing else."""

import numpy as np

from janus_jax.data import prompts as prompt_file
from janus_jax.errors import UserError
from janus_jax.sequences import tokens
from janus_jax.sequences.request import Request
from janus_jax.shapes import text


def check_prompts(config, lines, tokenizer) -> None:
    """Raises UserError where a prompt of a file is longer than config.prompt_tokens."""
    for number, line in enumerate(lines, start=1):
        length = len(tokens.prompt_ids(tokenizer, line))
        if length > config.prompt_tokens:
            raise UserError(
                f"prompt {number} of {config.prompts} has {length} tokens: set --config.prompt_tokens={length} or "
                "shorten it"
            )


def of_step(config, tokenizer, lines, number: int, attempt: int = 0) -> tuple[list[Request], int]:
    """(the requests of step `number`, the seed to draw them with). lines: the prompts of a file, or None for the
    embedded world's; another attempt has other requests."""
    rng = np.random.default_rng([config.seed, number, attempt] if attempt else [config.seed, number])
    count = config.prompts_per_step
    if lines is None:
        prompts = _of_the_world(config, tokenizer, rng)
    elif attempt:  # the file's order is that of first attempts
        prompts = [lines[i] for i in rng.choice(len(lines), count, replace=len(lines) < count)]
    else:
        prompts = [lines[i] for i in prompt_file.of_step(len(lines), count, config.seed, number)]
    return [Request(prompt) for prompt in prompts], int(rng.integers(2**31))


def _of_the_world(config, tokenizer, rng):
    prompts = []
    for freely in rng.random(config.prompts_per_step) < config.free_prompts:
        for _ in range(20):  # twice in a step it would be the same group twice, drawn alike
            prompt = _short_prompt(config, tokenizer, rng, freely)
            if prompt not in prompts:
                break
        prompts.append(prompt)
    return prompts


def _short_prompt(config, tokenizer, rng, freely):
    """A training prompt of at most config.prompt_tokens; longer ones are left out. Raises UserError where all are
    longer."""
    for _ in range(100):
        prompt = text.free_prompt(rng) if freely else text.train_prompt(rng)
        length = len(tokens.prompt_ids(tokenizer, prompt))
        if length <= config.prompt_tokens:
            return prompt
    raise UserError(
        f"prompts have more than {config.prompt_tokens} tokens: set --config.prompt_tokens={length} or more"
    )

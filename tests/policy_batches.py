"""What stands in a batch of stage 2, for tests."""

import functools

from tiny import processor

from janus_jax.sequences import tokens


def live(targets, row):
    """The targets of a row that are trained, by field."""
    keep = targets.weight[row] > 0
    return {name: getattr(targets, name)[row][keep] for name in ("at", "ids", "group", "advantage", "old_logps")}


def real(batch, row):
    """The ids of a row that are attended."""
    return batch.ids[row][batch.mask[row]].tolist()


def pieces():
    """Ids of made()'s prompt, of the question and of the transition."""
    encode = functools.partial(processor().encode, bos=False)
    return tokens.prompt_ids(processor().tokenizer, "two red circles"), encode(tokens.THINK), encode(tokens.NEXT)

"""What stays the same from step to step of stage 2."""

import dataclasses
from collections.abc import Callable

from janus_jax.checkpoints import loading
from janus_jax.models.janus import Janus
from janus_jax.rl import batches, released, requests
from janus_jax.rl.credit import CREDITS, Credit
from janus_jax.rl.programs import Programs, density_of, make_programs
from janus_jax.sampling.density import Sampling
from janus_jax.sequences.grammar import Grammar
from janus_jax.sequences.processor import Processor


@dataclasses.dataclass(frozen=True)
class Stage:
    """lines: the prompts of a file, or None for the embedded world's; layout: shapes of the batches; make: builds
    them, batches.make or released.make; look: called with (requests, pictures) of all that was drawn, on all hosts of a
    pod at once, before the judge is asked."""

    model: Janus
    processor: Processor
    grammar: Grammar
    sampling: Sampling
    credit: Credit
    lines: list[str] | None
    layout: batches.Layout
    programs: Programs
    make: Callable = batches.make
    look: Callable = lambda requests, pictures: None

    @property
    def guided(self) -> bool:
        return self.sampling.guided


def assemble(config, mesh, lines) -> tuple[Stage, dict]:
    """(Stage, the parameters that stage 2 starts from), for the mesh in the context. lines: the prompts of a file, or
    None."""
    model, params, processor = loading.load(config.init, mesh=mesh)
    model = Janus(model.cfg.changed(config.model))
    special, credit = processor.special, CREDITS[config.credit]
    programs = make_programs(config, model, (special.yes, special.no), params, mesh)
    grammar = Grammar.of(model.cfg, processor.tokenizer)
    layout = batches.layout(credit, grammar, config.prompt_tokens, config.rounds, config.max_reason_tokens)
    if lines is not None:
        requests.check_prompts(config, lines, processor.tokenizer)
    make = (released if config.released else batches).make
    stage = Stage(model, processor, grammar, density_of(config), credit, lines, layout, programs, make)
    return stage, params

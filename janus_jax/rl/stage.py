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
from janus_jax.shapes.world import SHIPPED, World


@dataclasses.dataclass(frozen=True)
class Stage:
    """files: where requests come from; layout: shapes of the batches; world: the embedded world that the checkpoint was
    trained on; weights: how often each category of the world is asked for; make: builds batches, batches.make or
    released.make; look: called with (requests, pictures) of all that was drawn, on all hosts of a pod at once, before
    the judge is asked."""

    model: Janus
    processor: Processor
    grammar: Grammar
    sampling: Sampling
    credit: Credit
    files: requests.Files
    layout: batches.Layout
    programs: Programs
    world: World = SHIPPED
    weights: dict[str, float] | None = None
    make: Callable = batches.make
    look: Callable = lambda requests, pictures: None

    @property
    def guided(self) -> bool:
        return self.sampling.guided


def assemble(config, mesh, files: requests.Files) -> tuple[Stage, dict]:
    """(Stage, the parameters that stage 2 starts from), for the mesh in the context."""
    model, params, processor = loading.load(config.init, mesh=mesh)
    model = Janus(model.cfg.changed(config.model))
    loading.same_sizes(config.init, model.cfg)  # config.model says how to compute, the checkpoint how large
    special, credit = processor.special, CREDITS[config.credit]
    programs = make_programs(config, model, (special.yes, special.no), params, mesh)
    grammar = Grammar.of(model.cfg, processor.tokenizer)
    sizes = config.prompt_tokens, config.rounds, config.max_reason_tokens
    layout = batches.layout(credit, grammar, *sizes, sources=requests.sources(config))
    requests.check_files(config, files, grammar)
    make = (released if config.released else batches).make
    world, weights = loading.world_of(config.init), requests.weights_of(config.failures)
    stage = Stage(
        *(model, processor, grammar, density_of(config), credit, files, layout, programs),
        **{"world": world, "weights": weights, "make": make},
    )
    return stage, params

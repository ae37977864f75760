"""The programs of stage 2, and those of drawing alone, from shapes: no weights, no tokenizer, no device.

What draws lies whole on the mesh but for `tensor`, in the dtype that is computed in; rows are split over its other
axes.
"""

import jax
import jax.numpy as jnp

from janus_jax.errors import UserError
from janus_jax.models import flops
from janus_jax.models.janus import Janus, JanusConfig, abstract_params, cast_params
from janus_jax.models.llama import CACHE_NAMES, init_cache
from janus_jax.parallel import sharding
from janus_jax.rl import credit, objective, ppo
from janus_jax.sampling import decode
from janus_jax.sampling.density import Sampling
from janus_jax.sequences import tokens
from janus_jax.training.program import Program, placed

# Tokens of the texts between pictures in Janus-Pro's vocabulary, and of what stands around a prompt.
THINK, NEXT = 12, 11
SPECIAL = tokens.SpecialIds(**{name: i for i, name in enumerate(tokens.SpecialIds.__dataclass_fields__)})


class _Processor:
    """Only what rollout.layout asks for."""

    special = SPECIAL

    @staticmethod
    def encode(text, bos=True):
        return [0] * {tokens.THINK: THINK, tokens.NEXT: NEXT}[text]


def model_of(config) -> Janus:
    """The model that a configuration is about. Raises UserError where it only names a checkpoint."""
    if not config.get("preset"):
        raise UserError("the configuration does not say how large the model is: set --config.preset, as in '7b'")
    try:
        return Janus(JanusConfig.preset(config.preset).changed(config.model))
    except ValueError as error:
        raise UserError(f"{error}: set --config.preset") from error


def drawing(model: Janus, sampling: Sampling, mesh, rows: int, rounds: int, prompt: int, beside) -> list[Program]:
    """What drawing, judging and drawing again `rows` trajectories at a time runs on a mesh. prompt: tokens at most;
    beside: see Program."""
    cfg = model.cfg
    shapes = jax.eval_shape(lambda params: cast_params(params, cfg.dtype), abstract_params(model))
    params = placed(shapes, sharding.param_shardings(shapes, mesh, without=("fsdp",)))
    between = THINK + sampling.max_reason_tokens + NEXT
    I, seen, D = cfg.vq.tokens, cfg.siglip.tokens, cfg.llama.width
    prompt = -(-prompt // 8) * 8
    slots = prompt + rounds * (I + between)
    guided = sampling.cfg_weight != 1.0
    painted = rows * (1 + guided)
    painter, judge = _cache(cfg, mesh, painted, slots), _cache(cfg, mesh, rows, slots)
    both = {"parameters": params, "cache": (painter, judge)}
    past = slots // 2  # on average

    def shape(dtype, *sizes):
        return jax.ShapeDtypeStruct(sizes, dtype)

    def text(count, length):
        return shape(jnp.int32, count, length), shape(jnp.bool, count, length)

    def hidden(count):
        return shape(cfg.dtype, count, D)

    def one(name, function, args, holds, needed, unknown=1):
        """The program; beside it lie also the parameters and the cache that it does not work on."""
        held = {id(leaf) for leaf in jax.tree.leaves(holds)}
        idle = {phase: [x for x in jax.tree.leaves(tree) if id(x) not in held] for phase, tree in both.items()}
        idle |= {phase: (tree, idle.get(phase)) for phase, tree in beside.items()}
        return Program(name, mesh, function, args, {}, holds, idle, needed, unknown)

    def prefill(count, length):
        return flops.decoder(cfg, count * length, count * flops.causal(length, past))

    keys = shape(jnp.uint32, rows, 2)
    M, side = sampling.max_reason_tokens, cfg.siglip.image_size
    with_painter, with_judge = ({"parameters": params, "cache": cache} for cache in (painter, judge))
    return [
        one(
            "prefill prompts",
            decode.start,
            (model, params, *text(painted, prompt), slots),
            with_painter,
            flops.decoder(cfg, painted * prompt, painted * flops.causal(prompt)),
        ),
        one(
            "draw",
            decode.draw,
            (model, params, painter, hidden(painted), keys, sampling, guided),
            with_painter,
            flops.decoder(cfg, painted * I, painted * flops.causal(I, past))
            + flops.code_head(cfg, painted * I)
            + flops.embed_codes(cfg, painted * I),
        ),
        one(
            "VQ decode",
            decode.decode_codes,
            (model, params, shape(jnp.int32, rows, I)),
            {"parameters": params},
            flops.vq_decoder(cfg.vq, rows),
        ),
        one(
            "judge: look",
            decode.extend_seen,
            (model, params, judge, shape(jnp.float32, rows, side, side, 3)),
            with_judge,
            prefill(rows, seen) + flops.siglip(cfg.siglip, rows) + flops.aligner(cfg, rows * seen),
        ),
        one(
            "judge: speak",
            decode.speak,
            (model, params, judge, hidden(rows), keys, sampling, SPECIAL),
            with_judge,
            flops.decoder(cfg, rows * M, rows * flops.causal(M, past)) + flops.text_head(cfg, rows * (M + 1)),
            M,
        ),
        *(
            [
                one("keep all rows", decode.keep_rows, (painter, shape(jnp.int32, painted)), {"cache": painter}, 0),
                one(
                    "keep half of them",
                    decode.fewer_rows,
                    (painter, shape(jnp.int32, painted // 2)),
                    {"cache": painter},
                    0,
                ),
                one(
                    "prefill reasons",
                    decode.extend_text,
                    (model, params, painter, *text(painted, between)),
                    with_painter,
                    prefill(painted, between),
                ),
            ]
            if rounds > 1
            else []
        ),
    ]


def _cache(cfg, mesh, rows, slots):
    """A cache's shapes, placed as the decoder asks for."""
    shapes = jax.eval_shape(lambda: init_cache(cfg.llama, rows, slots, cfg.dtype))
    fields = {name: getattr(shapes, name) for name in CACHE_NAMES}

    def place(name):
        spec = sharding.activation_spec(CACHE_NAMES[name], fields[name].shape, mesh)
        return placed(fields[name], jax.sharding.NamedSharding(mesh, spec))

    return shapes.replace(**{name: place(name) for name in fields})


def generation(config, devices) -> list[Program]:
    """Of janus_jax.generate: drawing alone, on the devices of one process. config: preset, model, mesh, prompt_tokens,
    batch (trajectories at a time), rounds, cfg_weight, max_reason_tokens."""
    sampling = Sampling(cfg_weight=config.cfg_weight, max_reason_tokens=config.max_reason_tokens)
    mesh = sharding.mesh_of(config.mesh, devices)
    return drawing(model_of(config), sampling, mesh, config.batch, config.rounds, config.prompt_tokens, {})


def reinforcement(config, devices) -> list[Program]:
    """Of janus_jax.train_rl: drawing, with the training state and the reference beside it; the reference's
    log-probabilities; the policy-gradient step."""
    model, mesh = model_of(config), sharding.mesh_of(config.mesh, devices)
    objective.check_rows(config, mesh)
    cfg, sampling = model.cfg, objective.sampling_of(config)
    rows = config.prompts_per_step * config.group
    with jax.set_mesh(mesh):
        params = abstract_params(model)
        programs = objective.make_programs(config, model, (SPECIAL.yes, SPECIAL.no), params, mesh)
    state = programs.built.abstract
    reference = placed(params, sharding.param_shardings(params, mesh))
    layout = credit.layout(
        config.credit, model, _Processor(), config.prompt_tokens, config.rounds, config.max_reason_tokens
    )
    guided = sampling.cfg_weight != 1.0
    batches = credit.blank(layout, rows, cfg.siglip.image_size, guided)
    needed = [sum(flops.scored(cfg, batch, trained) for batch in batches) for trained in (False, True)]
    batches = placed(batches, programs.by_row)
    trained = {"parameters": state.params, "optimizer": state.opt_state}
    rolled = drawing(
        model,
        sampling,
        mesh,
        min(rows, config.rollout_rows or rows),
        config.rounds,
        config.prompt_tokens,
        {"parameters": (state.params, reference), "optimizer": state.opt_state},
    )
    drawn_from = ppo.without_value_head(state.params)
    kept = {"parameters": reference, "optimizer": state.opt_state}
    return [
        Program("begin", mesh, programs.built.initial, (state.params,), {}, {"parameters": state.params}, {}, 0),
        Program("cast to draw", mesh, programs.cast, (drawn_from,), {}, {"parameters": state.params}, kept, 0),
        *rolled,
        Program(
            "reference",
            mesh,
            programs.refer,
            (reference, batches, reference if config.released else None),
            {},
            {"parameters": reference},
            trained,
            needed[0],
        ),
        Program(
            "train step", mesh, programs.built.step, (state, batches), {}, trained, {"parameters": reference}, needed[1]
        ),
    ]

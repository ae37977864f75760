"""The programs of every job, from shapes alone: no weights, no device. Texts are as long as the grammar says.

What draws lies whole on the mesh but for `tensor`, in the dtype that is computed in; rows are split over its other
axes.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from janus_jax.checkpoints import loading
from janus_jax.data import mixture
from janus_jax.errors import UserError
from janus_jax.models import flops
from janus_jax.models.decoder import DECODE_RULES, decode_params
from janus_jax.models.janus import Janus, JanusConfig, abstract_params, cast_params
from janus_jax.models.kv_cache import CACHE_NAMES, init_cache, take_rows
from janus_jax.parallel import sharding
from janus_jax.rl import batches, ppo
from janus_jax.rl import programs as rl_programs
from janus_jax.rl.credit import CREDITS
from janus_jax.sampling import decode
from janus_jax.sampling.density import Sampling
from janus_jax.sequences.grammar import Grammar
from janus_jax.sequences.row import Row, collate
from janus_jax.sequences.tokens import Tokenizer
from janus_jax.training import settings, sft
from janus_jax.training.program import Program, placed


def grammar_of(config, cfg: JanusConfig) -> Grammar:
    """The grammar with the tokenizer of the checkpoint that the job starts from, where that is here, and else with the
    embedded world's: its small vocabulary splits the texts between pictures into more tokens, not fewer."""
    try:
        tokenizer = Tokenizer.from_folder(loading.find(config.get("init") or "shapes-sft"))
    except UserError:
        tokenizer = Tokenizer.from_folder(loading.find("shapes-sft"))
    return Grammar.of(cfg, tokenizer)


def model_of(config) -> Janus:
    """The model that a configuration is about. Raises UserError where it only names a checkpoint."""
    if not config.get("preset"):
        raise UserError("the configuration does not say how large the model is: set --config.preset, as in '7b'")
    return Janus(sft.configured_model(config))


@dataclasses.dataclass(frozen=True)
class _Drawer:
    """The shapes that drawing `rows` trajectories at a time works on, placed on a mesh. beside: see Program."""

    model: Janus
    grammar: Grammar
    sampling: Sampling
    mesh: Any
    rows: int
    rounds: int
    prompt: int
    beside: dict
    params: Any
    painter: Any
    judge: Any

    @property
    def guided(self) -> bool:
        return self.sampling.guided

    @property
    def painted(self) -> int:
        return self.rows * (1 + self.guided)

    def batch(self, length, pictures=0, guided=False):
        """A Batch's shapes."""
        side = self.model.cfg.siglip.image_size
        rows, shape = [Row() for _ in range(self.rows)], (side, side, 3)
        made = collate(rows, length, 0, pictures=pictures, picture_shape=shape, guided=guided)
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), made)

    def hidden(self, rows):
        return jax.ShapeDtypeStruct((rows, self.model.cfg.llama.width), self.model.cfg.dtype)

    def keys(self):
        return jax.ShapeDtypeStruct((self.rows, 2), jnp.uint32)

    def program(self, name, function, args, holds, needed, unknown=1) -> Program:
        """The program; beside it lie also the parameters and the cache that it does not work on."""
        both = {"parameters": self.params, "cache": (self.painter, self.judge)}
        held = {id(leaf) for leaf in jax.tree.leaves(holds)}
        idle = {phase: [x for x in jax.tree.leaves(tree) if id(x) not in held] for phase, tree in both.items()}
        idle |= {phase: (tree, idle.get(phase)) for phase, tree in self.beside.items()}
        return Program(name, self.mesh, function, args, {}, holds, idle, needed, unknown)

    def prefill_flops(self, rows, length, past=0):
        return flops.decoder(self.model.cfg, rows * length, rows * flops.causal(length, past))


def _drawer(model, grammar, sampling, mesh, rows, rounds, prompt, beside) -> _Drawer:
    cfg, words = model.cfg, sampling.max_reason_tokens
    shapes = jax.eval_shape(lambda params: decode_params(cast_params(params, cfg.dtype)), abstract_params(model))
    params = placed(shapes, sharding.param_shardings(shapes, mesh, DECODE_RULES, without=("fsdp",)))
    painted = rows * (1 + sampling.guided)
    painter = _cache(cfg, mesh, painted, grammar.longest_painted(prompt, rounds, words))
    judge = _cache(cfg, mesh, rows, grammar.longest_judged(prompt, rounds, words))
    return _Drawer(model, grammar, sampling, mesh, rows, rounds, prompt, beside, params, painter, judge)


def drawing(
    model: Janus, grammar: Grammar, sampling: Sampling, mesh, rows: int, rounds: int, prompt: int, beside
) -> list[Program]:
    """What drawing, judging and drawing again `rows` trajectories at a time runs on a mesh. prompt: tokens at most;
    beside: see Program."""
    drawer = _drawer(model, grammar, sampling, mesh, rows, rounds, prompt, beside)
    return [*_painting(drawer), *_judging(drawer), *(_again(drawer) if rounds > 1 else [])]


def _slots(cache) -> int:
    return cache.slots


def _painting(d: _Drawer) -> list[Program]:
    cfg, I, holds = d.model.cfg, d.grammar.codes, {"parameters": d.params, "cache": d.painter}
    args = (d.model, d.params, d.batch(d.prompt, guided=d.guided), _slots(d.painter), d.guided)
    drawn = flops.decoder(cfg, d.painted * I, d.painted * flops.causal(I, _slots(d.painter) // 2))
    drawn += flops.code_head(cfg, d.painted * I) + flops.embed_codes(cfg, d.painted * I)
    painter = (d.model, d.params, d.painter, d.hidden(d.painted), d.keys(), d.sampling, d.guided)
    codes = jax.ShapeDtypeStruct((d.rows, I), jnp.int32)
    decoded = {"parameters": d.params}
    return [
        d.program("prefill prompts", decode.prefill, args, holds, d.prefill_flops(d.painted, d.prompt)),
        d.program("draw", decode.draw, painter, holds, drawn),
        d.program(
            "VQ decode", decode.decode_codes, (d.model, d.params, codes), decoded, flops.vq_decoder(cfg.vq, d.rows)
        ),
    ]


def _judging(d: _Drawer) -> list[Program]:
    cfg, M, holds = d.model.cfg, d.sampling.max_reason_tokens, {"parameters": d.params, "cache": d.judge}
    length, past = d.grammar.longest_look(d.prompt), _slots(d.judge) // 2  # on average
    seen = flops.siglip(cfg.siglip, d.rows) + flops.aligner(cfg, d.rows * d.grammar.seen)
    look = (d.model, d.params, d.batch(length, pictures=1), _slots(d.judge))
    speak = (d.model, d.params, d.judge, d.hidden(d.rows), d.keys(), d.sampling, d.grammar.special)
    said = flops.decoder(cfg, d.rows * M, d.rows * flops.causal(M, past)) + flops.text_head(cfg, d.rows * (M + 1))
    return [
        d.program("judge: look", decode.prefill, look, holds, d.prefill_flops(d.rows, length) + seen),
        d.program("judge: speak", decode.speak, speak, holds, said, M),
    ]


def _again(d: _Drawer) -> list[Program]:
    cache, rows = {"cache": d.painter}, jax.ShapeDtypeStruct((d.painted,), jnp.int32)
    half = jax.ShapeDtypeStruct((d.painted // 2,), jnp.int32)
    between = d.grammar.longest_redraw(d.sampling.max_reason_tokens)
    args = (d.model, d.params, d.painter, d.batch(between, guided=d.guided), d.guided)
    needed = d.prefill_flops(d.painted, between, _slots(d.painter) // 2)
    return [
        d.program("keep all rows", jax.jit(take_rows), (d.painter, rows), cache, 0),
        d.program("keep half of them", jax.jit(take_rows), (d.painter, half), cache, 0),
        d.program("prefill reasons", decode.extend, args, {"parameters": d.params, **cache}, needed),
    ]


def _cache(cfg, mesh, rows, slots):
    """A cache's shapes, placed as the decoder asks for."""
    shapes = jax.eval_shape(lambda: init_cache(cfg.llama, rows, slots, cfg.dtype))
    fields = {name: getattr(shapes, name) for name in CACHE_NAMES}

    def place(name):
        def one(leaf):
            spec = sharding.activation_spec(CACHE_NAMES[name], leaf.shape, mesh)
            return placed(leaf, jax.sharding.NamedSharding(mesh, spec))

        return jax.tree.map(one, fields[name])

    return shapes.replace(**{name: place(name) for name in fields})


def generation(config, devices) -> list[Program]:
    """Of janus_jax.generate: drawing alone, on the devices of one process. config: preset, model, mesh, prompt_tokens,
    batch (trajectories at a time), rounds, cfg_weight, max_reason_tokens."""
    model, sampling = model_of(config), Sampling(config.cfg_weight, max_reason_tokens=config.max_reason_tokens)
    sizes = config.batch, config.rounds, config.prompt_tokens
    mesh = sharding.mesh_of(config.mesh, devices)
    return drawing(model, grammar_of(config, model.cfg), sampling, mesh, *sizes, {})


def supervised(config, devices) -> list[Program]:
    """Of janus_jax.train_sft: the first state, and the step. Raises UserError as check_sft, buckets_of and build do."""
    settings.check_sft(config)
    mesh = sharding.mesh_of(config.mesh, devices)
    buckets = sft.buckets_of(config, mesh)
    model = Janus(sft.configured_model(config))
    with jax.set_mesh(mesh):
        built, by_row = sft.build(config, model, abstract_params(model), mesh)
    made = mixture.blank(buckets, model.cfg.vq.tokens, model.cfg.siglip.image_size)
    state, needed = built.abstract, sum(flops.scored(model.cfg, batch, trained=True) for batch in made)
    held = {"parameters": state.params, "optimizer": state.opt_state}
    return [
        Program("begin", mesh, built.initial, (state.params,), {}, {"parameters": state.params}, {}, 0),
        Program("train step", mesh, built.step, (state, placed(made, by_row)), {}, held, {}, needed),
    ]


def reinforcement(config, devices) -> list[Program]:
    """Of janus_jax.train_rl: drawing, with the training state and the reference beside it; the reference's
    log-probabilities; the policy-gradient step."""
    model, mesh = model_of(config), sharding.mesh_of(config.mesh, devices)
    rl_programs.check_rows(config, mesh)
    cfg, sampling, grammar = model.cfg, rl_programs.density_of(config), grammar_of(config, model.cfg)
    rows, yes_no = config.prompts_per_step * config.group, (grammar.special.yes, grammar.special.no)
    with jax.set_mesh(mesh):
        params = abstract_params(model)
        built = rl_programs.make_programs(config, model, yes_no, params, mesh)
    state, reference = built.built.abstract, placed(params, sharding.param_shardings(params, mesh))
    prompt, words = config.prompt_tokens, config.max_reason_tokens
    layout = batches.layout(CREDITS[config.credit], grammar, prompt, config.rounds, words)
    made = batches.blank(layout, rows, cfg.siglip.image_size, sampling.guided)
    needed = [sum(flops.scored(cfg, batch, trained) for batch in made) for trained in (False, True)]
    made = placed(made, built.by_row)
    trained = {"parameters": state.params, "optimizer": state.opt_state}
    kept = {"parameters": reference, "optimizer": state.opt_state}
    beside = {"parameters": (state.params, reference), "optimizer": state.opt_state}
    at_once = min(rows, config.rollout_rows or rows)
    refer = (reference, made, reference if config.released else None)
    policy = ppo.without_value_head(state.params)
    return [
        Program("begin", mesh, built.built.initial, (state.params,), {}, {"parameters": state.params}, {}, 0),
        Program("cast to draw", mesh, built.cast, (policy,), {}, {"parameters": state.params}, kept, 0),
        *drawing(model, grammar, sampling, mesh, at_once, config.rounds, prompt, beside),
        Program("reference", mesh, built.refer, refer, {}, {"parameters": reference}, trained, needed[0]),
        Program("train step", mesh, built.built.step, (state, made), {}, trained, {"parameters": reference}, needed[1]),
    ]

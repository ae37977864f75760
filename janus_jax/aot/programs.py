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
from janus_jax.rl import batches, ppo, requests
from janus_jax.rl import programs as rl_programs
from janus_jax.rl.credit import CREDITS
from janus_jax.sampling import decode
from janus_jax.sampling.density import Sampling
from janus_jax.sequences.grammar import Grammar
from janus_jax.sequences.row import Row, collate
from janus_jax.sequences.tokens import Tokenizer
from janus_jax.training import settings, sft
from janus_jax.training.program import Program, bytes_per_device, placed


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
    sources: int
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

    @property
    def asked(self) -> int:
        """Tokens of a request: the prompt and a source picture's codes."""
        return self.prompt + self.sources * self.grammar.codes

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

    def program(self, name, function, args, holds, needed, unknown=1, caches=None) -> Program:
        """The program; beside it lie also the parameters and those of the caches (None: painter and judge, as large as
        they get) that it does not work on."""
        both = {"parameters": self.params, "cache": (self.painter, self.judge) if caches is None else caches}
        held = {id(leaf) for leaf in jax.tree.leaves(holds)}
        idle = {phase: [x for x in jax.tree.leaves(tree) if id(x) not in held] for phase, tree in both.items()}
        idle |= {phase: (tree, idle.get(phase)) for phase, tree in self.beside.items()}
        return Program(name, self.mesh, function, args, {}, holds, idle, needed, unknown)

    def prefill_flops(self, rows, length, past=0):
        return flops.decoder(self.model.cfg, rows * length, rows * flops.causal(length, past))


def _drawer(model, grammar, sampling, mesh, rows, rounds, prompt, sources, beside) -> _Drawer:
    cfg, words = model.cfg, sampling.max_reason_tokens
    shapes = jax.eval_shape(lambda params: decode_params(cast_params(params, cfg.dtype)), abstract_params(model))
    params = placed(shapes, sharding.param_shardings(shapes, mesh, DECODE_RULES, without=("fsdp",)))
    painted = rows * (1 + sampling.guided)
    begin = grammar.longest_painted(prompt, rounds, words, sources) - grammar.codes
    *_, (_, _, slots) = decode.parts(cfg.vq, begin, sampling.lookahead)
    painter = _cache(cfg, mesh, painted, slots)
    judge = _cache(cfg, mesh, rows, grammar.longest_judged(prompt, rounds, words, sources))
    return _Drawer(model, grammar, sampling, mesh, rows, rounds, prompt, sources, beside, params, painter, judge)


def drawing(
    model: Janus, grammar: Grammar, sampling: Sampling, mesh, rows: int, rounds: int, prompt: int, beside, sources=0
) -> list[Program]:
    """What drawing, judging and drawing again `rows` trajectories at a time runs on a mesh. prompt: tokens at most;
    beside: see Program; sources: source pictures of a request."""
    drawer = _drawer(model, grammar, sampling, mesh, rows, rounds, prompt, sources, beside)
    return [*_painting(drawer), *_judging(drawer), *(_again(drawer) if rounds > 1 else [])]


def _slots(cache) -> int:
    return cache.slots


def _painting(d: _Drawer) -> list[Program]:
    cfg = d.model.cfg
    asked = _cache(cfg, d.mesh, d.painted, d.asked)
    args = (d.model, d.params, d.batch(d.asked, guided=d.guided), None, d.guided)
    codes = jax.ShapeDtypeStruct((d.rows, d.grammar.codes), jnp.int32)
    pixels = jax.ShapeDtypeStruct((d.rows, *[cfg.vq.image_size] * 2, 3), jnp.float32)
    decoded, encoded = {"parameters": d.params}, flops.vq_encoder(cfg.vq, d.rows)
    encode = d.program("VQ encode", decode.encode_codes, (d.model, d.params, pixels), decoded, encoded)
    return [
        *([encode] if d.sources else []),
        d.program(
            "prefill prompts",
            decode.prefill,
            args,
            {"parameters": d.params, "cache": asked},
            d.prefill_flops(d.painted, d.asked),
            caches=d.judge,
        ),
        *_drawing_parts(d),
        d.program(
            "VQ decode", decode.decode_codes, (d.model, d.params, codes), decoded, flops.vq_decoder(cfg.vq, d.rows)
        ),
    ]


def _drawing_parts(d: _Drawer) -> list[Program]:
    """What draws a part of the first picture, for each size of cache; and of the last one, at its largest."""
    cfg, made = d.model.cfg, []
    first = decode.parts(cfg.vq, d.asked, d.sampling.lookahead)
    begin = d.grammar.longest_painted(d.prompt, d.rounds, d.sampling.max_reason_tokens, d.sources) - d.grammar.codes
    (done, count, most) = decode.parts(cfg.vq, begin, d.sampling.lookahead)[-1]
    for slots in dict.fromkeys([*(slots for *_, slots in first), most]):
        codes = sum(n for _, n, each in first if each == slots)
        # tokens before the codes that it draws, on average
        past = begin + done if not codes else d.asked + sum(n for _, n, each in first if each < slots)
        past += (codes or count) // 2
        made.append(_drawing_part(d, slots, d.painter if slots == most else None, count, past, codes))
    return made


def _drawing_part(d: _Drawer, slots, cache, count, past, codes) -> Program:
    cfg, tokens = d.model.cfg, d.painted * count
    cache = cache or _cache(cfg, d.mesh, d.painted, slots)
    needed = flops.decoder(cfg, tokens, tokens * past) + flops.code_head(cfg, tokens) + flops.embed_codes(cfg, tokens)
    args = (d.model, d.params, cache, d.hidden(d.painted), d.keys(), d.sampling, d.guided)
    args += (jax.ShapeDtypeStruct((), jnp.int32), count)
    weights = d.params["llama"]["layers"], d.params["gen_head"], d.params["gen_aligner"]
    least = bytes_per_device(weights) + bytes_per_device((cache.k, cache.v)) * past // slots
    name, holds = f"draw, {slots} slots", {"parameters": d.params, "cache": cache}
    made = d.program(name, decode.draw_part, args, holds, needed, caches=d.judge)
    return made._replace(codes=codes, least=least)


def _judging(d: _Drawer) -> list[Program]:
    cfg, M, holds = d.model.cfg, d.sampling.max_reason_tokens, {"parameters": d.params, "cache": d.judge}
    length, past = d.grammar.longest_look(d.prompt + d.sources * d.grammar.seen), _slots(d.judge) // 2  # on average
    pictures = 1 + d.sources
    seen = flops.siglip(cfg.siglip, d.rows * pictures) + flops.aligner(cfg, d.rows * pictures * d.grammar.seen)
    look = (d.model, d.params, d.batch(length, pictures=pictures), _slots(d.judge))
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
        d.program("prefill reasons", decode.append, args, {"parameters": d.params, **cache}, needed),
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
    mesh, grammar = sharding.mesh_of(config.mesh, devices), grammar_of(config, model.cfg)
    # rows that wait for others before each later round, see rounds.fill
    lengths = config.prompt_tokens, config.rounds, config.max_reason_tokens
    painted = config.batch * (1 + sampling.guided)
    waiting = [
        (
            _cache(model.cfg, mesh, painted, grammar.longest_painted(config.prompt_tokens, turn, lengths[-1])),
            _cache(model.cfg, mesh, config.batch, grammar.longest_judged(*lengths)),
        )
        for turn in range(1, config.rounds)
    ]
    return drawing(model, grammar, sampling, mesh, *sizes, {"cache": waiting})


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
    sources = requests.sources(config)
    layout = batches.layout(CREDITS[config.credit], grammar, prompt, config.rounds, words, sources)
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
        *drawing(model, grammar, sampling, mesh, at_once, config.rounds, prompt, beside, sources),
        Program("reference", mesh, built.refer, refer, {}, {"parameters": reference}, trained, needed[0]),
        Program("train step", mesh, built.built.step, (state, made), {}, trained, {"parameters": reference}, needed[1]),
    ]

"""Janus: one decoder, two picture encoders in front of it, two heads behind it.

    text     ids   --embed_text-->   embeddings --decode--> hidden --text_logits--> the next word
    picture  codes --embed_codes-->  embeddings             hidden --code_logits--> the next code
    picture  pixels --understand-->  embeddings     (SigLIP: what the model judges by)
    picture  pixels --encode_codes--> codes --decode_codes--> pixels     (VQ: what it draws with)

Sequences are assembled outside, by concatenating embeddings; only `decode` runs the decoder.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from janus_jax.errors import UserError
from janus_jax.models import declared, decoder
from janus_jax.models.attention import CHOICES
from janus_jax.models.kv_cache import Cache
from janus_jax.models.llama import Llama, LlamaConfig
from janus_jax.models.siglip import Siglip, SiglipConfig
from janus_jax.models.stack import REMAT
from janus_jax.models.vq import VQ, VQConfig
from janus_jax.parallel import sharding

Array = jax.Array

DTYPES = tuple(map(jnp.dtype, (jnp.float32, jnp.bfloat16, jnp.float16, jnp.float64)))
_PARTS = {"llama": LlamaConfig, "siglip": SiglipConfig, "vq": VQConfig}


@dataclasses.dataclass(frozen=True)
class JanusConfig:
    """Everything that decides the program except the parameters' own dtype.

    `dtype`: what the towers compute in (logits are f32 always). `remat`: "none", "full" or "dots". `scan`:
    loop over the layers, or lay them out one after another. `attention`: of the decoder where many tokens attend at
    once: "splash" (a Pallas kernel), "dot" (all scores in memory), or "auto", the kernel on TPUs.
    """

    llama: LlamaConfig = LlamaConfig()
    siglip: SiglipConfig = SiglipConfig()
    vq: VQConfig = VQConfig()
    dtype: Any = jnp.float32
    remat: str = declared.choice("none", REMAT)
    scan: bool = declared.switch(True)
    attention: str = declared.choice("auto", CHOICES)

    def __post_init__(self):
        declared.check(self)
        for name, part in _PARTS.items():
            if not isinstance(getattr(self, name), part):
                raise UserError(f"{name} is {str(getattr(self, name))[:40]!r}: it must be a {part.__name__}")
        try:
            dtype = jnp.dtype(self.dtype or "absent")  # "bfloat16" and jnp.bfloat16 are one setting
        except (TypeError, ValueError):
            dtype = None
        if dtype is None or dtype not in DTYPES:  # numpy takes None for one of them
            known = ", ".join(each.name for each in DTYPES)
            raise UserError(f"dtype is {str(self.dtype)[:40]!r}: it must be one of {known}")
        object.__setattr__(self, "dtype", dtype)

    @classmethod
    def preset(cls, name: str) -> "JanusConfig":
        """The configuration of a known model: "1b", "7b", or "shapes" (the embedded world)."""
        if name not in PRESETS:
            raise ValueError(f"unknown preset {name!r}; known: {', '.join(PRESETS)}")
        return PRESETS[name]

    def to_dict(self) -> dict[str, Any]:
        """Plain types only, fit for JSON; from_dict reads it back."""
        plain = dataclasses.asdict(self)
        plain["vq"]["channel_multipliers"] = list(self.vq.channel_multipliers)
        return {**plain, "dtype": self.dtype.name}

    def other_size(self, other: "JanusConfig") -> tuple[str, Any, Any] | None:
        """The first entry of the towers in which another configuration differs: (name, mine, the other's); None: the
        parameters of one fit the other."""
        mine, theirs = self.to_dict(), other.to_dict()
        for part in _PARTS:
            for name, value in mine[part].items():
                if theirs[part][name] != value:
                    return f"{part}.{name}", value, theirs[part][name]
        return None

    def changed(self, changes) -> "JanusConfig":
        """This one with other entries, given as in to_dict. Raises UserError for an unknown entry or value."""
        try:
            plain = self.to_dict()
            for part, entries in changes.items():
                plain[part] = {**plain[part], **entries} if isinstance(plain.get(part), dict) else entries
            return JanusConfig.from_dict(plain)
        except (TypeError, ValueError) as error:
            raise UserError(f"config.model does not make a model: {error}") from error

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "JanusConfig":
        """The inverse of to_dict. Missing keys take their defaults; an unknown one, or a value
        of the wrong type or range, raises UserError naming it."""
        if not isinstance(plain, dict):
            return declared.build(cls, plain)  # which refuses it
        parts = {key: declared.build(part, plain[key], key + ".") for key, part in _PARTS.items() if key in plain}
        return declared.build(cls, {**plain, **parts})


PRESETS = {
    # Vocabulary sizes are multiples of 8 so that eight devices can share. Four layers laid out one after another are a
    # seventh faster on a CPU than the loop.
    "shapes": JanusConfig(
        llama=LlamaConfig(
            vocab_size=512, width=192, layers=4, heads=4, kv_heads=4, head_dim=48, mlp=512, max_positions=1024
        ),
        siglip=SiglipConfig(image_size=96, patch_size=16, width=128, layers=4, heads=4, mlp=512),
        vq=VQConfig(
            image_size=96,
            patch=4,
            channels=24,
            channel_multipliers=(1, 2, 4),
            res_blocks=1,
            z_channels=32,
            codebook_size=1024,
            groups=1,
            attention=False,
            local_norm=True,
        ),
        scan=False,
    ),
    "1b": JanusConfig(),
    "7b": JanusConfig(llama=LlamaConfig(width=4096, layers=30, heads=32, kv_heads=32, mlp=11008)),
}


class Projector(nn.Module):
    """Two layers with an exact GELU between: [B,T,in] -> [B,T,out]. `names`: logical names of (hidden,
    output).
    """

    hidden: int
    out: int
    names: tuple[str, str]
    dtype: Any
    out_dtype: Any

    @nn.compact
    def __call__(self, x):
        hidden, out = self.names
        # Fan-in scaling first: the inputs may be 8 wide, and rows that start alike would take long to tell
        # apart.
        x = Linear(self.hidden, hidden, nn.initializers.lecun_normal(), self.dtype, self.dtype, name="fc1")(x)
        x = nn.gelu(x, approximate=False)
        return Linear(self.out, out, nn.initializers.lecun_normal(), self.dtype, self.out_dtype, name="fc2")(x)


class Linear(nn.Module):
    """x [B,T,in] -> [B,T,features] with a bias; the output dimension has a logical name."""

    features: int
    name_out: str
    kernel_init: Any
    dtype: Any
    out_dtype: Any

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32).astype(self.out_dtype)
        out = ("batch", "length", self.name_out)
        y = sharding.einsum("BTD,DF->BTF", x.astype(self.dtype), kernel, out, dtype=self.out_dtype)
        # The bias is split like the output's last dimension, or Explicit mode refuses the sum.
        return y + sharding.constrain(bias[None, None], None, None, self.name_out)


class Janus(nn.Module):
    """The model. Params: llama, siglip, aligner, vq, gen_embed, gen_aligner, gen_head."""

    cfg: JanusConfig

    def setup(self):
        cfg = self.cfg
        D, dtype = cfg.llama.width, cfg.dtype
        repeat = {"dtype": dtype, "scan": cfg.scan, "remat": cfg.remat}
        self.llama = Llama(cfg.llama, attention=cfg.attention, **repeat)
        self.siglip = Siglip(cfg.siglip, **repeat)
        self.vq = VQ(cfg.vq, dtype)
        self.aligner = Projector(D, D, ("mlp", "width"), dtype, dtype)
        self.gen_aligner = Projector(D, D, ("mlp", "width"), dtype, dtype)
        self.gen_head = Projector(D, cfg.vq.codebook_size, ("width", "vocab"), dtype, jnp.float32)
        # Not the tokenizer's codebook: a table of its own, of the same shape.
        table = (cfg.vq.codebook_size, cfg.vq.code_dim)
        self.gen_embed = self.param("gen_embed", nn.initializers.normal(1.0), table, jnp.float32)

    def __call__(self, drawn: Array, seen: Array, ids: Array) -> dict[str, Array]:
        """Runs every part once, so that init makes the whole tree.

        drawn f32[B,H,W,3] for the tokenizer, seen f32[B,H,W,3] for SigLIP, ids i32[B,T].
        """
        codes = self.encode_codes(drawn)
        parts = (self.embed_text(ids), self.understand(seen), self.embed_codes(codes))
        embeds = jnp.concatenate(parts, axis=1)
        hidden = self.decode(embeds, jnp.ones(embeds.shape[:2], bool))
        text, code = self.text_logits(hidden), self.code_logits(hidden)
        return {"pixels": self.decode_codes(codes), "text_logits": text, "code_logits": code}

    def encode_codes(self, pixels: Array) -> Array:
        """pixels f32[B,H,W,3] in [-1,1] -> codes i32[B,I]."""
        return self.vq.encode_codes(pixels)

    def decode_codes(self, codes: Array) -> Array:
        """codes i32[B,I] -> pixels f32[B,H,W,3], not clipped."""
        return self.vq.decode_codes(codes)

    def understand(self, pixels: Array) -> Array:
        """pixels f32[B,H,W,3] normalised for SigLIP -> embeddings [B,I,D]."""
        return self.aligner(self.siglip(pixels))

    def embed_text(self, ids: Array) -> Array:
        """ids i32[B,T] -> embeddings [B,T,D]."""
        return self.llama.embed(ids)

    def embed_codes(self, codes: Array) -> Array:
        """codes i32[B,T] -> embeddings [B,T,D]."""
        return self.gen_aligner(sharding.take(self.gen_embed, codes, ("batch", "length", None)))

    def decode(self, embeds: Array, mask: Array, positions: Array | None = None, cache: Cache | None = None):
        """embeds [B,T,D], mask bool[B,T], positions i32[B,T] | None -> hidden [B,T,D], or (hidden, cache)
        given a cache, to whose keys and values those of the T tokens are appended.

        Positions count real tokens unless given. The cache needs T free slots: a write past its end is not noticed.
        With a cache the parameters may be those of models.decoder.decode_params.
        """
        if cache is None:
            return self.llama(embeds, mask, positions)
        params = decoder.decode_params(self.variables["params"])["llama"]
        embeds = embeds.astype(self.cfg.dtype)
        return decoder.decode(self.cfg.llama, params, embeds, mask, positions, cache, self.cfg.attention)

    def text_logits(self, hidden: Array) -> Array:
        """hidden [B,T,D] -> f32[B,T,V]."""
        return self.llama.logits(hidden)

    def code_logits(self, hidden: Array) -> Array:
        """hidden [B,T,D] -> f32[B,T,C]."""
        return self.gen_head(hidden)


# What the model computes with in f32 whatever its dtype: the norms, the nearest code, the bias of f32 logits. The rest
# it casts to its dtype before each use; whoever draws thousands of tokens with it does so once.
CAST_RULES = (
    (r".*norm[a-z0-9_]*/(scale|bias)|vq/codebook|gen_head/fc2/bias", False),
    (r".*", True),
)


def cast_params(params, dtype):
    """Parameters (or some of them) in the dtype that they are computed in: the same numbers come out."""
    cast = sharding.match(CAST_RULES, params)
    return jax.tree.map(lambda x, yes: x.astype(dtype) if yes else x, params, cast)


def differentiated(model: Janus, gradients: str):
    """A function of the parameters: what gradients in "float32" or in "bfloat16" are taken with respect to (the
    `computed` of training/step.py).

    bfloat16: parameters cast once per step, not before each use. A matrix's gradient is computed in bfloat16 either
    way, as its factors are; held and summed so it takes half the memory, and each sum over micro-batches is rounded
    to 8 bits. Raises UserError for another dtype, and where the model computes in f32.
    """
    if gradients == "float32":
        return lambda params: params
    if gradients != "bfloat16" or model.cfg.dtype != jnp.bfloat16:
        raise UserError(
            f"gradients in {gradients!r} of a model that computes in {jnp.dtype(model.cfg.dtype).name}: set "
            "--config.gradients to 'float32', or to 'bfloat16' with --config.model.dtype='bfloat16'"
        )
    return lambda params: cast_params(params, jnp.bfloat16)


def _init(model: Janus, key: Array, dtype):
    cfg = model.cfg
    sizes = cfg.vq.image_size, cfg.siglip.image_size
    drawn, seen = (jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32) for size in sizes)
    # Lazy: the forward pass is traced for its shapes only and never compiled.
    params = model.lazy_init(key, drawn, seen, jax.ShapeDtypeStruct((1, 1), jnp.int32))["params"]
    return jax.tree.map(lambda x: x.astype(dtype), params)


def abstract_params(model: Janus, dtype=jnp.float32) -> Any:
    """The parameter tree as jax.ShapeDtypeStruct; takes no memory."""
    # The key is made inside: with the mesh of a TPU that is not there in the context, nothing can be computed.
    return jax.eval_shape(lambda: _init(model, jax.random.key(0), dtype))


def init_params(model: Janus, key: Array, dtype=jnp.float32, mesh: jax.sharding.Mesh | None = None) -> Any:
    """Fresh parameters (a nested dict), already split over `mesh` if there is one. The values do not depend
    on the mesh.
    """
    shardings = None if mesh is None else sharding.param_shardings(abstract_params(model, dtype), mesh)
    # A program of a hundred random draws that runs once: on a CPU, optimising it takes longer than it saves.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    init = jax.jit(lambda key: _init(model, key, dtype), out_shardings=shardings, compiler_options=options)
    return init(key)

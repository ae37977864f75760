"""The picture tokenizer: VQ-16, a convolutional autoencoder with a codebook of unit vectors.

    pixels f32[B,H,W,3] in [-1,1] --encode--> z f32[B,h,w,E] --quantize--> codes i32[B,I] --lookup--> zq f32[B,I,E]
    zq f32[B,h,w,E] --decode_latents--> pixels f32[B,H,W,3], not clipped

Every level but the last halves the picture, so h = H / 2**(levels-1), and I = h*w codes run row by row. With a patch
the network works on squares of patch x patch pixels as one (space to depth), so that a larger picture costs no more.
Latents and codebook rows are both scaled to unit length before the nearest row is looked for: the nearest row
is the one with the largest cosine. Nothing here knows how the tokenizer is trained; training composes these
methods.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from janus_jax.errors import UserError
from janus_jax.models import declared

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class VQConfig:
    """Sizes of the tokenizer; the defaults are VQ-16 at 384 px.

    local_norm: every position is normalised over its own channels alone. Together with attention=False a code then
    depends on its surroundings only, not on what else the picture shows. patch: side in pixels of the squares that the
    network sees as one; the published tokenizers have 1.
    """

    image_size: int = declared.whole(384, 1, 4096)
    channels: int = declared.whole(128, 1, 8192)
    channel_multipliers: tuple[int, ...] = declared.wholes((1, 1, 2, 2, 4), 1, 64, longest=12)
    res_blocks: int = declared.whole(2, 1, 64)
    z_channels: int = declared.whole(256, 1, 8192)
    codebook_size: int = declared.whole(16384, 1, 2**22)
    code_dim: int = declared.whole(8, 1, 8192)
    groups: int = declared.whole(32, 1, 8192)
    attention: bool = declared.switch(True)
    local_norm: bool = declared.switch(False)
    patch: int = declared.whole(1, 1, 64)

    def __post_init__(self):
        declared.check(self, "vq.")
        if self.image_size % self.stride:
            raise UserError(
                f"vq.image_size {self.image_size} is not a multiple of the tokenizer's stride {self.stride}"
            )
        for multiplier in self.channel_multipliers:
            if self.channels * multiplier % self.groups:
                raise UserError(f"{self.channels * multiplier} channels do not split into {self.groups} groups")

    @property
    def stride(self) -> int:
        """Pixels per code, along one side."""
        return self.patch * 2 ** (len(self.channel_multipliers) - 1)

    @property
    def grid(self) -> int:
        """Codes along one side of a picture."""
        return self.image_size // self.stride

    @property
    def tokens(self) -> int:
        """Codes per picture."""
        return self.grid**2


def unit(x: Array) -> Array:
    """Scales the last axis to length 1. A zero vector stays zero, with a finite gradient."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(jnp.square(x), axis=-1, keepdims=True), 1e-24))


def to_patches(pixels: Array, patch: int) -> Array:
    """[B,H,W,N] -> [B,H/patch,W/patch,patch*patch*N]."""
    B, H, W, N = pixels.shape
    x = pixels.reshape(B, H // patch, patch, W // patch, patch, N)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(B, H // patch, W // patch, patch * patch * N)


def from_patches(x: Array, patch: int) -> Array:
    """The inverse of to_patches."""
    B, h, w, N = x.shape
    x = x.reshape(B, h, w, patch, patch, N // patch**2).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(B, h * patch, w * patch, N // patch**2)


class Norm(nn.Module):
    """Group normalisation, then swish where asked for: what precedes every convolution of a residual block. `local`
    takes the statistics per position instead of over the whole picture.

    The statistics are an f32 island. (The stock GroupNorm would do, but it raises under strict dtype
    promotion as soon as inputs or parameters are bf16.)
    """

    groups: int
    local: bool
    dtype: Any
    activate: bool = True
    eps: float = 1e-6

    @nn.compact
    def __call__(self, x):
        B, h, w, N = x.shape
        scale = self.param("scale", nn.initializers.ones, (N,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (N,), jnp.float32)
        x = x.astype(jnp.float32).reshape(B, h * w, self.groups, N // self.groups)
        over = (3,) if self.local else (1, 3)
        x = x - x.mean(over, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.square(x).mean(over, keepdims=True) + self.eps)
        x = x.reshape(B, h, w, N) * _per_channel(scale) + _per_channel(bias)
        return (nn.swish(x) if self.activate else x).astype(self.dtype)


def _per_channel(v):
    return v.astype(jnp.float32)[None, None, None, :]


def conv(features: int, size: int, dtype, name: str, **kwargs) -> nn.Conv:
    """A convolution that keeps the picture's size unless told otherwise."""
    kwargs = {"padding": size // 2, **kwargs}
    return nn.Conv(features, (size, size), dtype=dtype, name=name, **kwargs)


class ResBlock(nn.Module):
    """x + conv(norm(conv(norm(x)))); a 1x1 convolution carries x when the number of channels changes."""

    features: int
    groups: int
    local: bool
    dtype: Any

    @nn.compact
    def __call__(self, x):
        h = conv(self.features, 3, self.dtype, "conv1")(Norm(self.groups, self.local, self.dtype, name="norm1")(x))
        h = conv(self.features, 3, self.dtype, "conv2")(Norm(self.groups, self.local, self.dtype, name="norm2")(h))
        if x.shape[-1] != self.features:
            x = conv(self.features, 1, self.dtype, "shortcut")(x)
        return x + h


class Attention(nn.Module):
    """One head over all positions of the feature map, residual."""

    groups: int
    local: bool
    dtype: Any

    @nn.compact
    def __call__(self, x):
        B, h, w, N = x.shape
        normed = Norm(self.groups, self.local, self.dtype, activate=False, name="norm")(x)
        q, k, v = (conv(N, 1, self.dtype, name)(normed).reshape(B, h * w, N) for name in ("q", "k", "v"))
        # The softmax is an f32 island.
        scores = jnp.einsum("BTN,BSN->BTS", q, k, preferred_element_type=jnp.float32) * N**-0.5
        weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
        out = jnp.einsum("BTS,BSN->BTN", weights, v).reshape(B, h, w, N)
        return x + conv(N, 1, self.dtype, "out")(out)


class Middle(nn.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    groups: int
    local: bool
    attention: bool
    dtype: Any

    @nn.compact
    def __call__(self, x):
        N = x.shape[-1]
        x = ResBlock(N, self.groups, self.local, self.dtype, name="res0")(x)
        if self.attention:
            x = Attention(self.groups, self.local, self.dtype, name="attn")(x)
        return ResBlock(N, self.groups, self.local, self.dtype, name="res1")(x)


class Level(nn.Module):
    """The blocks of one resolution, then a change of resolution: "down", "up" or none."""

    features: int
    blocks: int
    groups: int
    local: bool
    attention: bool
    resample: str | None
    dtype: Any

    @nn.compact
    def __call__(self, x):
        for i in range(self.blocks):
            x = ResBlock(self.features, self.groups, self.local, self.dtype, name=f"res{i}")(x)
            if self.attention:
                x = Attention(self.groups, self.local, self.dtype, name=f"attn{i}")(x)
        if self.resample == "down":
            # One row and one column of zeros at the bottom and the right only, as the original pads.
            edges = ((0, 1), (0, 1))
            x = conv(self.features, 3, self.dtype, "down", strides=2, padding=edges)(x)
        elif self.resample == "up":
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
            x = conv(self.features, 3, self.dtype, "up")(x)
        return x


class Encoder(nn.Module):
    """pixels [B,H,W,3] -> features [B,h,w,z_channels]."""

    channels: int
    multipliers: tuple[int, ...]
    res_blocks: int
    z_channels: int
    groups: int
    local: bool
    attention: bool
    dtype: Any

    @nn.compact
    def __call__(self, x):
        x = conv(self.channels, 3, self.dtype, "conv_in")(x)
        last = len(self.multipliers) - 1
        for i, multiplier in enumerate(self.multipliers):
            x = Level(
                features=self.channels * multiplier,
                blocks=self.res_blocks,
                groups=self.groups,
                local=self.local,
                attention=self.attention and i == last,
                resample="down" if i < last else None,
                dtype=self.dtype,
                name=f"level{i}",
            )(x)
        x = Middle(self.groups, self.local, self.attention, self.dtype, name="mid")(x)
        x = Norm(self.groups, self.local, self.dtype, name="norm_out")(x)
        return conv(self.z_channels, 3, self.dtype, "conv_out")(x)


class Decoder(nn.Module):
    """features [B,h,w,z_channels] -> pixels [B,H,W,out]; level0 is the lowest resolution, one block more per
    level.
    """

    out: int
    channels: int
    multipliers: tuple[int, ...]
    res_blocks: int
    groups: int
    local: bool
    attention: bool
    dtype: Any

    @nn.compact
    def __call__(self, x):
        last = len(self.multipliers) - 1
        x = conv(self.channels * self.multipliers[last], 3, self.dtype, "conv_in")(x)
        x = Middle(self.groups, self.local, self.attention, self.dtype, name="mid")(x)
        for i, multiplier in enumerate(reversed(self.multipliers)):
            x = Level(
                features=self.channels * multiplier,
                blocks=self.res_blocks + 1,
                groups=self.groups,
                local=self.local,
                attention=self.attention and i == 0,
                resample="up" if i < last else None,
                dtype=self.dtype,
                name=f"level{i}",
            )(x)
        x = Norm(self.groups, self.local, self.dtype, name="norm_out")(x)
        return conv(self.out, 3, self.dtype, "conv_out")(x)


class VQ(nn.Module):
    """The tokenizer. Params: encoder, quant_conv, codebook [C,E], post_quant_conv, decoder."""

    cfg: VQConfig
    dtype: Any = jnp.float32

    def setup(self):
        cfg = self.cfg
        shared = {
            "channels": cfg.channels,
            "multipliers": cfg.channel_multipliers,
            "res_blocks": cfg.res_blocks,
            "groups": cfg.groups,
            "local": cfg.local_norm,
            "attention": cfg.attention,
            "dtype": self.dtype,
        }
        self.encoder = Encoder(z_channels=cfg.z_channels, **shared)
        self.quant_conv = nn.Conv(cfg.code_dim, (1, 1), dtype=self.dtype)
        self.codebook = self.param(
            "codebook", nn.initializers.normal(1.0), (cfg.codebook_size, cfg.code_dim), jnp.float32
        )
        self.post_quant_conv = nn.Conv(cfg.z_channels, (1, 1), dtype=self.dtype)
        self.decoder = Decoder(out=3 * cfg.patch**2, **shared)

    def __call__(self, pixels: Array) -> Array:
        """pixels f32[B,H,W,3] -> their reconstruction, same shape. No gradient passes the choice of codes."""
        return self.decode_codes(self.encode_codes(pixels))

    def encode(self, pixels: Array) -> Array:
        """pixels f32[B,H,W,3] in [-1,1] -> latents z f32[B,h,w,E], not yet of unit length."""
        patches = to_patches(pixels.astype(self.dtype), self.cfg.patch)
        return self.quant_conv(self.encoder(patches)).astype(jnp.float32)

    def quantize(self, z: Array) -> Array:
        """z f32[B,h,w,E] -> codes i32[B,I], row by row; the lower index wins a tie."""
        B, h, w, E = z.shape
        codebook = unit(self.codebook.astype(jnp.float32))
        # Full precision: accelerators multiply f32 in fewer bits by default, and the choice is discrete.
        cosine = jnp.einsum("BIE,CE->BIC", unit(z).reshape(B, h * w, E), codebook, precision="highest")
        return jnp.argmax(cosine, axis=-1).astype(jnp.int32)

    def lookup(self, codes: Array) -> Array:
        """codes i32[B,I] -> their codebook rows at unit length, f32[B,I,E]."""
        return unit(jnp.take(self.codebook, codes, axis=0).astype(jnp.float32))

    def decode_latents(self, zq: Array) -> Array:
        """zq f32[B,h,w,E] -> pixels f32[B,H,W,3], not clipped."""
        patches = self.decoder(self.post_quant_conv(zq.astype(self.dtype))).astype(jnp.float32)
        return from_patches(patches, self.cfg.patch)

    def encode_codes(self, pixels: Array) -> Array:
        """pixels f32[B,H,W,3] in [-1,1] -> codes i32[B,I]."""
        return self.quantize(self.encode(pixels))

    def decode_codes(self, codes: Array) -> Array:
        """codes i32[B,I] of square pictures -> pixels f32[B,H,W,3], not clipped."""
        B, I = codes.shape
        side = round(I**0.5)
        if side**2 != I:
            raise ValueError(f"{I} codes do not make a square picture")
        return self.decode_latents(self.lookup(codes).reshape(B, side, side, self.cfg.code_dim))

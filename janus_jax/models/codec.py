"""The picture tokenizer by itself, jitted: pixels to codes and codes to pixels."""

import functools

import jax
import numpy as np

from janus_jax.models.vq import VQ
from janus_jax.sequences import images


@functools.partial(jax.jit, static_argnames="vq")
def encode(vq: VQ, params, pixels):
    """pixels f32[B,h,w,3] in [-1,1] -> codes i32[B,I]; params: of the tokenizer alone."""
    return vq.apply({"params": params}, pixels, method="encode_codes")


@functools.partial(jax.jit, static_argnames="vq")
def decode(vq: VQ, params, codes):
    """codes i32[B,I] -> pixels f32[B,h,w,3], about [-1,1]."""
    return vq.apply({"params": params}, codes, method="decode_codes")


def in_groups(vq: VQ, params):
    """The same two for K pictures of each of P prompts: encode(pictures u8[P,K,h,w,3]) -> codes i32[P,K,I], and
    decode(codes) -> such pictures, both as numpy."""

    def encode_all(pictures):
        flat = pictures.reshape(-1, *pictures.shape[2:]) / np.float32(127.5) - 1
        return np.asarray(encode(vq, params, flat)).reshape(*pictures.shape[:2], -1)

    def decode_all(codes):
        pixels = images.to_uint8(decode(vq, params, codes.reshape(-1, codes.shape[-1])))
        return pixels.reshape(*codes.shape[:2], *pixels.shape[1:])

    return encode_all, decode_all

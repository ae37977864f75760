"""Bytes that a loop moves, read from a program's text: by hand, and of a loop that this machine compiles."""

import jax
import jax.numpy as jnp

from janus_jax.aot import traffic

TEXT = """HloModule m
%fused (p.0: f32[8,128], p.1: f32[1,128], p.2: s32[]) -> f32[8,128] {
  %p.0 = f32[8,128]{1,0} parameter(0)
  %p.1 = f32[1,128]{1,0} parameter(1)
  %p.2 = s32[] parameter(2)
  %zero = s32[] constant(0)
  ROOT %dus = f32[8,128]{1,0} dynamic-update-slice(%p.0, %p.1, %p.2, %zero)
}
%body (arg: (s32[], f32[8,128], f32[128,64])) -> (s32[], f32[8,128], f32[128,64]) {
  %arg = (s32[], f32[8,128]{1,0}, f32[128,64]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%arg), index=0
  %x = f32[8,128]{1,0} get-tuple-element(%arg), index=1
  %w = f32[128,64]{1,0} get-tuple-element(%arg), index=2
  %row = f32[1,128]{1,0} dynamic-slice(%x, %i, %i), dynamic_slice_sizes={1,128}
  %new = f32[8,128]{1,0} fusion(%x, %row, %i), kind=kLoop, calls=%fused
  %near = f32[128,64]{1,0:T(8,128)S(1)} copy(%w)
  %y = f32[8,64]{1,0} dot(%new, %near), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %t = (s32[], f32[8,128]{1,0}, f32[128,64]{1,0}) tuple(%i, %new, %w)
}
%cond (arg: (s32[], f32[8,128], f32[128,64])) -> pred[] {
  %arg = (s32[], f32[8,128]{1,0}, f32[128,64]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%arg), index=0
  %n = s32[] constant(5)
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}
ENTRY %main (a: (s32[], f32[8,128], f32[128,64])) -> (s32[], f32[8,128], f32[128,64]) {
  %a = (s32[], f32[8,128]{1,0}, f32[128,64]{1,0}) parameter(0)
  ROOT %loop = (s32[], f32[8,128]{1,0}, f32[128,64]{1,0}) while(%a), condition=%cond, body=%body
}
"""


def test_by_hand():
    """A row is cut out (and read again) and written in place, a matrix is brought near, a product reads it there."""
    cut, written, brought, product = 2 * 512, 512 + 512, 128 * 64 * 4, 8 * 128 * 4 + 8 * 64 * 4
    assert traffic.moved(TEXT) == cut + written + brought + product


def test_what_lies_near_is_free():
    far = TEXT.replace("S(1)", "")
    assert traffic.moved(far) == traffic.moved(TEXT) + 2 * 128 * 64 * 4  # written, and read by the product


def test_a_compiled_loop():
    """Twice the parameters would be twice the bytes; a program without a loop moves none."""

    def loop(x, w):
        return jax.lax.fori_loop(0, 5, lambda _, x: jnp.tanh(x @ w), x)

    def moved(width):
        shapes = jax.ShapeDtypeStruct((1, 512), jnp.float32), jax.ShapeDtypeStruct((512, width), jnp.float32)
        return traffic.moved(jax.jit(loop).lower(*shapes).compile().as_text())

    assert 512 * 512 * 4 <= moved(512) < 1.1 * 512 * 512 * 4
    assert traffic.moved(jax.jit(jnp.sin).lower(jnp.ones(3)).compile().as_text()) == 0

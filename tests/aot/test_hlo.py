"""Collectives and arithmetic of programs written by hand, and of one that is compiled here."""

import jax
import jax.numpy as jnp
import pytest

from janus_jax.aot import hlo
from janus_jax.aot.hlo import Collective
from janus_jax.parallel import sharding

PROGRAM = """HloModule jit_step, is_scheduled=true

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %c = f32[] add(f32[] %a, f32[] %b)
}

%fused (p: bf16[8,128], q: bf16[128,64]) -> f32[8,64] {
  %p = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  %q = bf16[128,64]{1,0:T(8,128)(2,1)} parameter(1)
  ROOT %product = f32[8,64]{1,0:T(8,128)} convolution(%p, %q), dim_labels=bf_io->bf
}

%layers (carry: (s32[], bf16[8,128], bf16[32,64])) -> (s32[], bf16[8,128], bf16[32,64]) {
  %carry = (s32[], bf16[8,128]{1,0:T(8,128)(2,1)}, /*index=2*/bf16[32,64]{1,0}) parameter(0)
  %x = bf16[8,128]{1,0:T(8,128)(2,1)} get-tuple-element(%carry), index=1
  %w = bf16[32,64]{1,0} get-tuple-element(%carry), index=2
  %start = (bf16[32,64]{1,0}, bf16[128,64]{1,0}) all-gather-start(%w), channel_id=1, replica_groups=[1,4]<=[4]
  %done = bf16[128,64]{1,0} all-gather-done(%start)
  %y = f32[8,64]{1,0:T(8,128)} fusion(%x, %done), kind=kOutput, calls=%fused
  %r = f32[8,16]{1,0} reduce-scatter(%y), channel_id=2, replica_groups={{0,1,2,3}}, dimensions={1}, to_apply=%sum
  ROOT %t = (s32[], bf16[8,128]{1,0}, bf16[32,64]{1,0}) tuple(%carry, %x, %w)
}

%until (carry: (s32[], bf16[8,128], bf16[32,64])) -> pred[] {
  %carry.1 = (s32[], bf16[8,128], bf16[32,64]) parameter(0)
  ROOT %go = pred[] constant(true)
}

ENTRY %main (x: bf16[8,128], w: bf16[32,64]) -> f32[8,8] {
  %x.1 = bf16[8,128]{1,0} parameter(0)
  %w.1 = bf16[32,64]{1,0} parameter(1)
  %zero = s32[] constant(0)
  %tuple = (s32[], bf16[8,128]{1,0}, bf16[32,64]{1,0}) tuple(%zero, %x.1, %w.1)
  %loop = (s32[], bf16[8,128]{1,0}, bf16[32,64]{1,0}) while(%tuple), condition=%until, body=%layers, TRIPS
  %out = bf16[8,128]{1,0} get-tuple-element(%loop), index=1
  %both = (bf16[8,128]{1,0}, f32[4]{0}) all-reduce(%out, %small), channel_id=3, to_apply=%sum
  %small = f32[4]{0} constant({1, 2, 3, 4})
  ROOT %dot = f32[8,8]{1,0} dot(%out, %out), lhs_contracting_dims={1}, rhs_contracting_dims={1}
}
"""
KNOWN = PROGRAM.replace("TRIPS", 'backend_config={"known_trip_count":{"n":"24"},"other":{"x":"7"}}')
COUNTS = """%counter = s32[] get-tuple-element(%carry.1), index=0
  %bound = s32[] constant(24)
  ROOT %go = pred[]{:T(512)} compare(%counter, %bound), direction=LT"""
GROWS = """%at = s32[] get-tuple-element(%carry), index=0
  %step = s32[] constant(STEP)
  %next = s32[] add(%at, %step)
  ROOT %t = (s32[], bf16[8,128]{1,0}, bf16[32,64]{1,0}) tuple(%next, %x, %w)"""
OPEN = PROGRAM.replace("TRIPS", "metadata={}")


def test_collectives_are_counted_as_often_as_their_loop_runs():
    assert hlo.collectives(KNOWN) == {
        "all-gather": Collective(24, 24 * 128 * 64 * 2),  # what arrives
        "reduce-scatter": Collective(24, 24 * 8 * 64 * 4),  # what is sent
        "all-reduce": Collective(1, 8 * 128 * 2 + 4 * 4),
    }


def test_a_loop_whose_end_is_not_known():
    assert hlo.collectives(OPEN)["all-gather"].count == 1
    assert hlo.collectives(OPEN, unknown=80)["all-gather"].count == 80
    assert hlo.collectives(OPEN, unknown=80)["all-reduce"].count == 1


@pytest.mark.parametrize("step, times", [(1, 24), (2, 12)])
def test_a_loop_that_counts(step, times):
    """What the compiler notes nowhere stands in the loop's condition and in what its counter grows by."""
    text = OPEN.replace("ROOT %go = pred[] constant(true)", COUNTS)
    text = text.replace(
        "ROOT %t = (s32[], bf16[8,128]{1,0}, bf16[32,64]{1,0}) tuple(%carry, %x, %w)", GROWS.replace("STEP", str(step))
    )
    assert hlo.collectives(text, unknown=80)["all-gather"].count == times


def test_a_sum_that_is_scattered():
    """The compiler for TPUs writes it as a fusion of an all-reduce and a slice."""
    text = KNOWN.replace("%fused", "%all-reduce-scatter.1").replace(
        "ROOT %product", "%all = f32[8,512]{1,0} all-reduce(%p), to_apply=%sum\n  ROOT %product"
    )
    found = hlo.collectives(text)
    assert found["reduce-scatter"].count == 48 and found["all-reduce"].count == 1


def test_products_inside_fusions_and_outside():
    assert hlo.flops(KNOWN) == 24 * 2 * 8 * 64 * 128 + 2 * 8 * 8 * 128


def test_what_is_gathered():
    assert len(hlo.gathered(KNOWN)) == 1 and not hlo.gathered(KNOWN, least=128 * 64 + 1)


@pytest.mark.parametrize("type_text, size", [("bf16[2,3]{1,0:T(8,128)(2,1)}", 12), ("pred[5]", 5), ("u32[]", 0)])
def test_bytes(type_text, size):
    assert hlo.size_of(type_text) == size


def convolution(window, labels, left, right, out, more=""):
    return f"""HloModule m

ENTRY %main (p: f32[1], q: f32[1]) -> f32[1] {{
  %p = f32[{left}]{{0}} parameter(0)
  %q = f32[{right}]{{0}} parameter(1)
  ROOT %r = f32[{out}]{{0}} convolution(%p, %q), window={{{window}}}, dim_labels={labels}{more}
}}
"""


def test_convolutions():
    # 3x3 with padding on 4x4: 16 places, of which the border has fewer neighbours: (3*4-2)^2 = 100 pairs
    text = convolution("size=3x3 pad=1_1x1_1", "b01f_01io->b01f", "2,4,4,5", "3,3,5,7", "2,4,4,7")
    assert hlo.flops(text) == 2 * 100 * 2 * 5 * 7
    # four products of 6x5 and 5x7 matrices as one convolution: the batch is an axis most of whose places meet padding
    text = convolution("size=4 stride=3 pad=0_0 lhs_dilate=4", "0bf_0io->0bf", "4,6,5", "4,5,7", "4,6,7")
    assert hlo.flops(text) == 2 * 4 * 6 * 5 * 7


def test_a_compiled_program():
    """What is read from the compiler's own text: one product per device, one sum over the devices."""
    mesh = sharding.make_mesh(1, 1, 8)
    split = [jax.NamedSharding(mesh, jax.P(None, "tensor")), jax.NamedSharding(mesh, jax.P("tensor", None))]

    def layers(x, w):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w @ w.T), None), x, None, length=5)[0]

    program = jax.jit(layers, in_shardings=split, out_shardings=split[0])
    text = program.lower(jnp.ones((16, 64)), jnp.ones((64, 32))).compile().as_text()
    assert hlo.collectives(text)["all-reduce"] == Collective(5, 5 * 16 * 32 * 4)
    assert hlo.flops(text) == 5 * 2 * (2 * 16 * 8 * 32)

"""Where the time of a code goes: the pieces of a step of drawing, each alone, in milliseconds.

    python -m benchmarks.pieces --size small

The rows are those of compare's drawing, a pair for each picture under guidance.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import sizes
from janus_jax import cli
from janus_jax.models import decoder
from janus_jax.sampling import density

ROWS = 2 * sizes.PICTURES
SLOTS = (128, 256, 608)


def timed(name: str, function, *args, times: int = 8) -> None:
    """Prints the least milliseconds of some runs."""
    function = jax.jit(function)
    jax.block_until_ready(function(*args))
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        jax.block_until_ready(function(*args))
        spent.append(time.perf_counter() - start)
    print(f"{name:44} {1000 * min(spent):8.2f} ms", flush=True)


def layers(eqn: str, width: int, mlp: int):
    """f(x, all matrices): the products of every layer, one after another; attention and activations left out."""

    def run(x, matrices):
        for qkv, o, gate_up, down in matrices:
            x = x + jnp.einsum(eqn, jnp.einsum(eqn, x, qkv)[..., :width], o)
            x = x + jnp.einsum(eqn, jnp.einsum(eqn, x, gate_up)[..., :mlp], down)
        return x

    return run


def main(argv):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pieces", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=("tiny", "small"), default="small")
    args = parser.parse_args(argv)
    cfg, rng = sizes.SIZES[args.size], np.random.default_rng(0)
    c, C = cfg.llama, cfg.vq.codebook_size

    def random(*shape):
        return jnp.asarray(0.02 * rng.standard_normal(shape, np.float32))

    inner = c.heads * c.head_dim
    shapes = (c.width, inner + 2 * c.kv_heads * c.head_dim), (inner, c.width), (c.width, 2 * c.mlp), (c.mlp, c.width)
    matrices = [[random(*shape) for shape in shapes] for _ in range(c.layers)]
    x = random(ROWS, 1, c.width)
    timed("all matrices, read and summed", lambda ws: sum(w.sum() for layer in ws for w in layer), matrices)
    timed("products of the layers, inputs first", layers("BTI,IO->BTO", c.width, c.mlp), x, matrices)
    turned = [[jnp.array(np.asarray(w).T.copy()) for w in layer] for layer in matrices]
    timed("products of the layers, outputs first", layers("BTI,OI->BTO", c.width, c.mlp), x, turned)
    del matrices, turned
    for slots in SLOTS:
        cached = [[random(ROWS, c.kv_heads, slots, c.head_dim) for _ in "kv"] for _ in range(c.layers)]
        query = random(ROWS, 1, c.kv_heads, c.heads // c.kv_heads, c.head_dim)
        visible = jnp.ones((ROWS, 1, slots), bool)

        def attend(query, cached, visible):
            for k, v in cached:
                query = query + decoder._attend(query, k, v, visible)
            return query

        timed(f"attention of all layers to {slots} slots", attend, query, cached, visible)
    timed("head over the codes", lambda x, a, b: (x @ a) @ b, x[:, 0], random(c.width, c.width), random(c.width, C))
    logits, keys = random(2, sizes.PICTURES, C), jnp.zeros((sizes.PICTURES, 2), jnp.uint32)

    def pick(keys, logits):
        return density.choose(keys, 0, density.code_logps(*logits, density.Sampling()))

    timed("density and choice of the codes", pick, keys, logits)


if __name__ == "__main__":
    cli.run(main)

"""Parts of a training step by themselves, in processor time: what docs/speed.md says of them.

taskset -c 0 python -m benchmarks.parts            # as any program has its memory
taskset -c 0 python -m benchmarks.parts --keep     # as the commands keep it, see janus_jax/heap.py
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import ours, sizes
from janus_jax import Janus, abstract_params, heap
from janus_jax.models import attention
from janus_jax.parallel import sharding
from janus_jax.training import optim
from janus_jax.training import step as train_step

RUNS = 7


def draws(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in shapes]


def least(function, *args, donated=0) -> float:
    """The fewest seconds of processor time of some runs. donated: arguments that the results take the place of, each of
    which is the first of these anew."""
    run, seconds = jax.jit(function, donate_argnums=tuple(range(donated))), []
    kept = [jax.tree.map(jnp.copy, x) for x in args[:donated]]
    for _ in range(RUNS):
        begun = time.process_time()
        result = jax.block_until_ready(run(*kept, *args[donated:]))
        seconds.append(time.process_time() - begun)
        kept = list(result[:donated]) if donated else kept
    return min(seconds)


def pulled(function, *args):
    """A function and its gradients."""

    def both(cotangent, *args):
        y, pull = jax.vjp(function, *args)
        return y, pull(cotangent)

    return both, (draws(jax.eval_shape(function, *args).shape)[0], *args)


def dot_product(q, k, v, mask):
    """jax's own, with the decoder's mask."""
    seen = mask[:, None, None, :] & jnp.tril(jnp.ones((mask.shape[1],) * 2, bool))[None, None]
    return jax.nn.dot_product_attention(q, k, v, mask=seen)


def update(size: str):
    """(what a step does with its gradient, parameters, optimizer's state, gradient)."""
    params = abstract_params(Janus(sizes.SIZES[size]))
    kept = train_step.split(params, train_step.trainable_leaves(params, ours.FROZEN))[0]
    kept = jax.tree.map(lambda leaf: draws(leaf.shape)[0], kept)
    tx = optim.adamw(1e-4, decay_mask=sharding.match(optim.DECAY_RULES, kept))

    def step(kept, state, grads):
        updates, fresh = tx.update(grads, state, kept)
        norms = [optax.tree.norm(tree) for tree in (grads, updates, kept)]
        sound = jnp.isfinite(norms[0]) & (norms[1] <= jnp.maximum(norms[2], 1000.0))
        new = optax.apply_updates(kept, updates), fresh
        return *jax.tree.map(lambda a, b: jnp.where(sound, a, b), new, (kept, state)), norms

    return step, kept, tx.init(kept), jax.tree.map(lambda x: x * 0.01, kept)


def main(argv):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.parts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", action="store_true", help="keep freed memory")
    if parser.parse_args(argv).keep:
        heap.keep()
    (logits,) = draws((8, 64, 16384))
    x, w = draws((8, 96, 256), (256, 704))
    flat = sharding.einsum
    names = ("batch", "length", "mlp")
    found = {"exp of 8 x 64 x 16384": least(jnp.exp, logits)}
    for name, product in {
        "einsum": lambda x, w: jnp.einsum("BTD,DF->BTF", x, w),
        "matrices": lambda x, w: flat("BTD,DF->BTF", x, w, names),
    }.items():
        both, args = pulled(product, x, w)
        found[f"product with gradients, {name}"] = least(both, *args)
    for rows, tokens, heads in ((8, 96, 4), (2, 608, 12)):
        qkv, mask = draws(*[(rows, tokens, heads, 64)] * 3), jnp.ones((rows, tokens), bool)
        for name, attend in (("jax.nn", dot_product), ("dense", attention.dense)):
            both, args = pulled(lambda *qkv, attend=attend, mask=mask: attend(*qkv, mask), *qkv)
            found[f"attention of {rows} x {tokens} tokens, {name}"] = least(both, *args)
    step, *args = update("tiny")
    found["AdamW of tiny, with a step's checks"] = least(step, *args, donated=2)
    for name, seconds in found.items():
        print(f"{name:45} {1000 * seconds:7.2f} ms")


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])  # not cli.run, which keeps memory

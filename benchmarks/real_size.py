"""A model of real size on this machine, with random weights: what it takes to write, load, draw and answer.

    python -m benchmarks.real_size --preset 1b                                  # write, load, draw, judge, answer
    python -m benchmarks.real_size --preset 7b --dtype bfloat16 --load-only     # write and load

Writes a published folder of random bfloat16 weights, tensor by tensor, loads it, draws and judges one 384 px picture
with guidance and asks one question about it, all through the package's public functions. Prints what each phase took:
seconds by the clock and of the CPU (compilation included), and the most anonymous memory that the process held, sampled
every 10 ms. A load shall stay below the model's size in the target dtype + 1.5 times its largest leaf, on top of what
the process held before; exit status 1 where it does not. On a CPU use float32: its bfloat16 products are many times
slower.
"""

import argparse
import contextlib
import functools
import math
import sys
import tempfile
import threading
import time
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

import janus_jax
from janus_jax import cli, rules
from janus_jax.checkpoints import loading, model_folder, published, tensor_names, tensorfiles
from janus_jax.parallel import sharding
from janus_jax.sequences.tokens import Tokenizer

GIB = 2**30
# Any will do: weights are as many, whatever their ids mean.
TOKENIZER = Path(__file__).parent.parent / "tests" / "golden"
PROMPT, QUESTION = "a red cup to the left of a blue vase", "What is shown in the picture?"


def random_tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """bf16 noise that depends on the name alone; what goes through it stays about as large as it was."""
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    if len(shape) == 1:
        noise *= 0.1
        noise += "norm" in name and name.endswith("weight")
    elif len(shape) == 4 or "embed" not in name:
        noise /= math.sqrt(math.prod(shape[1:]))
    return noise.astype(ml_dtypes.bfloat16)


def write(folder: Path, cfg: janus_jax.JanusConfig, name: str, tokenizer: Tokenizer) -> None:
    """Writes a folder of random weights in the published format `name`; one tensor is held at a time."""
    shapes = {path: leaf.shape for path, leaf in sharding.paths(janus_jax.abstract_params(janus_jax.Janus(cfg)))}
    tensors = {
        tensor: tensorfiles.Tensor(
            slot.tensor_shape, np.dtype(ml_dtypes.bfloat16), functools.partial(random_tensor, tensor, slot.tensor_shape)
        )
        for tensor, slot in tensor_names.slots(shapes, published.FORMATS[name].rules).items()
    }
    with model_folder.replacing(folder) as scratch:
        for file, content in published.small_files(cfg, name, "bfloat16", tokenizer, tied=False).items():
            (scratch / file).write_bytes(content)
        tensorfiles.write_shards(scratch, tensors)


def anonymous() -> int:
    """Bytes of memory that this process holds and no file does."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("RssAnon"))


class Watch:
    """The most anonymous memory since `start`, sampled by a thread."""

    def __init__(self):
        self.peak = 0
        threading.Thread(target=self._sample, daemon=True).start()

    def _sample(self):
        while True:
            self.peak = max(self.peak, anonymous())
            time.sleep(0.01)

    @contextlib.contextmanager
    def phase(self, title: str):
        """Prints what the block took."""
        self.peak, wall, cpu = anonymous(), time.monotonic(), time.process_time()
        yield
        wall, cpu = time.monotonic() - wall, time.process_time() - cpu
        print(f"{title:8} {wall:6.0f} s, {cpu:6.0f} s of CPU, peak {self.peak / GIB:6.2f} GiB", flush=True)


def main(argv):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real_size", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=("1b", "7b"), default="1b")
    parser.add_argument("--format", choices=tuple(published.FORMATS), default="original")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="to load and compute in")
    parser.add_argument("--load-only", action="store_true", help="neither draw nor answer")
    parser.add_argument("--words", type=int, default=16, help="most tokens of the reason and of the answer")
    parser.add_argument("--folder", type=Path, help="where the model stays and is found again (default: it is removed)")
    args = parser.parse_args(argv)
    rules.check_flags(args)
    watch = Watch()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(scratch) / args.preset
        if not (folder / model_folder.CONFIG).exists():
            with watch.phase("write"):
                cfg = janus_jax.JanusConfig.preset(args.preset)
                write(folder, cfg, args.format, Tokenizer.from_folder(TOKENIZER))
        loading.same_sizes(folder, janus_jax.JanusConfig.preset(args.preset))
        within = measure(watch, folder, jnp.dtype(args.dtype), args.words, args.load_only)
    sys.exit(0 if within else 1)


def measure(watch: Watch, folder: Path, dtype, words: int, load_only: bool) -> bool:
    """Loads, draws and answers; returns whether the load stayed within its bound."""
    jax.block_until_ready(jnp.ones(3) + 1)  # the backend takes room of its own
    janus_jax.abstract_params(janus_jax.Janus(janus_jax.JanusConfig.preset("7b")))  # and so does tracing
    before = anonymous()
    with watch.phase("load"):
        model, params, processor = janus_jax.load(folder, dtype)
    took = watch.peak - before
    sizes = [leaf.nbytes for leaf in jax.tree.leaves(params)]
    bound = sum(sizes) + 1.5 * max(sizes)
    print(
        f"         {sum(leaf.size for leaf in jax.tree.leaves(params)):,} parameters in {dtype.name}: "
        f"{sum(sizes) / GIB:.2f} GiB, largest leaf {max(sizes) / GIB:.2f}; the load took {took / GIB:.2f} GiB at most, "
        f"allowed {bound / GIB:.2f}",
        flush=True,
    )
    if not load_only:
        sampling = janus_jax.Sampling(cfg_weight=5.0, max_reason_tokens=words)
        with watch.phase("draw"):
            (drawn,) = janus_jax.introspect(model, params, processor, [PROMPT], samples=1, rounds=1, sampling=sampling)
        (shot,) = drawn.rounds
        print(
            f"         {shot.image.size} pixels, {len(shot.codes)} codes; judged: P(yes) {shot.p_yes:.3f}", flush=True
        )
        with watch.phase("answer"):
            answer = janus_jax.chat(model, params, processor, [([shot.image], QUESTION)], sampling)
        print(f"         {answer[0]!r}")
    return took < bound


if __name__ == "__main__":
    cli.run(main)

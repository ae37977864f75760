"""Janus-Pro-1B's sizes with random weights on one GPU, in bfloat16: this project and HF transformers on the same card.

    python -m benchmarks.gpu OUT        OUT/gpu.json; benchmarks/gpu.sh calls it

Draws pictures of 384 px under guidance (1, 8 and 32 at a time) and takes steps of AdamW on draw rows. Says seconds,
and the share that they are of what the card does at most, measured here: bytes of a copy for drawing, a product of
bfloat16 matrices for a step. Each part is a process with a limit of its own and prints as it goes, so that a part that
fails costs only itself. Needs jax, flax, optax, numpy, Pillow and, for HF's side, torch and transformers; nothing else
of what setup.py lists.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

SIZE = os.environ.get("GPU_SIZE", "1b")  # "tiny": to try the script where there is no card
BATCHES = (8, 1, 32)
AHEAD = (4, 16)  # codes of a pass
ROWS = 8  # of a training step
# name of a part -> the most seconds that it may take; together under ten minutes
PARTS = {"ceilings": 30, "ours_draw": 200, "hf_draw": 100, "hf_sft": 40, "ours_sft": 200}


def say(**values):
    print(json.dumps(values), flush=True)


def timed(work, times=2):
    """The least seconds of some runs after one that is not counted, and that one's."""
    seconds = []
    for _ in range(times + 1):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return {"seconds": min(seconds[1:]), "first_seconds": seconds[0]}


def ceilings():
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    n, words = (8192, 2**30) if device == "cuda" else (1024, 2**24)
    source, target = torch.randn(words, device=device), torch.empty(words, device=device)
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))

    def ran(work, times=10):
        def all_of_them():
            for _ in range(times):
                work()
            if device == "cuda":
                torch.cuda.synchronize()

        return timed(all_of_them)["seconds"] / times

    copy, product = ran(lambda: target.copy_(source)), ran(lambda: a @ b)
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    say(card=name, copy_GB_s=8 * words / copy / 1e9, matmul_TFLOP_s=2 * n**3 / product / 1e12)


def ours_model(dtype, **changes):
    """(model, random parameters of a dtype, made on the card)."""
    import jax
    import jax.numpy as jnp

    import janus_jax
    from benchmarks import sizes
    from janus_jax.models.janus import abstract_params

    model = janus_jax.Janus(sizes.SIZES[SIZE].changed({"dtype": "bfloat16", **changes}))
    leaves, tree = jax.tree.flatten(abstract_params(model, jnp.dtype(dtype)))

    @jax.jit
    def noise(key):
        keys = jax.random.split(key, len(leaves))
        return [0.02 * jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]

    params = jax.tree.unflatten(tree, noise(jax.random.key(0, impl="rbg")))
    ones = jax.tree_util.tree_map_with_path(lambda path, x: x + 1 if path[-1].key == "scale" else x, params)
    return model, jax.block_until_ready(ones)


def least_bytes(cfg, pictures):
    """What one picture of a batch must move: the weights of each step once, and the cache that is filled."""
    from benchmarks import sizes
    from janus_jax.models import flops

    c = cfg.llama
    layers = c.layers * c.width * (c.head_dim * (2 * c.heads + 2 * c.kv_heads) + 3 * c.mlp)
    heads = c.width * (2 * c.width + cfg.vq.codebook_size)
    cached = 2 * pictures * 2 * c.layers * c.kv_heads * c.head_dim
    return 2 * (cfg.vq.tokens * (layers + heads) + cached * flops.causal(cfg.vq.tokens, sizes.PROMPT))


def ours_draw():
    from benchmarks import ours

    model, params = ours_model("bfloat16")
    params = ours.prepared(model, params)
    for pictures in BATCHES:
        codes = timed(lambda pictures=pictures: ours.draw(model, params, pictures, decoded=False))
        whole = timed(lambda pictures=pictures: ours.draw(model, params, pictures), 1)
        say(pictures=pictures, codes=codes, with_pixels=whole, least_bytes=least_bytes(model.cfg, pictures))
    # of random weights no guess is right: what a pass of so many codes takes
    for ahead in AHEAD:
        passes = timed(lambda ahead=ahead: ours.draw(model, params, 1, decoded=False, ahead=ahead), 1)
        say(pictures=1, lookahead=ahead, passes=passes)


def hf_model(dtype):
    import torch

    from benchmarks import hf, sizes

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        return hf.model_of(sizes.SIZES[SIZE], device, getattr(torch, dtype))


def hf_draw():
    from benchmarks import hf, sizes

    cfg, model = sizes.SIZES[SIZE], hf_model("bfloat16")
    whole, vision = cfg.vq.tokens, model.model.vision_model.config
    for pictures in BATCHES:
        vision.num_image_tokens = 16  # a warm-up
        hf.draw(model, cfg, pictures, decoded=False)
        vision.num_image_tokens = whole
        start = time.perf_counter()
        codes = hf.draw(model, cfg, pictures, decoded=False)
        codes.sum().item()
        seconds = time.perf_counter() - start
        say(pictures=pictures, codes={"seconds": seconds}, shape=list(codes.shape))


def trained_flops(cfg):
    from benchmarks import sizes
    from janus_jax.models import flops

    T, I = sizes.PROMPT + cfg.vq.tokens, cfg.vq.tokens
    decoder = flops.decoder(cfg, ROWS * T, ROWS * flops.causal(T))
    return flops.TRAINED * (decoder + flops.code_head(cfg, ROWS * I) + flops.embed_codes(cfg, ROWS * I))


def ours_sft():
    from benchmarks import ours, sizes

    model, params = ours_model("float32")
    result = timed(ours.sft_step(model, params, ROWS), 5)
    tokens = ROWS * (sizes.PROMPT + model.cfg.vq.tokens)
    say(step=result, tokens_s=tokens / result["seconds"], flop=trained_flops(model.cfg))


def hf_sft():
    import torch

    from benchmarks import hf, sizes

    cfg, model = sizes.SIZES[SIZE], hf_model("float32")
    step = hf.sft_step(model, cfg, ROWS)

    def run():
        with torch.autocast(model.device.type, torch.bfloat16):
            return step()

    result = timed(run, 5)
    tokens = ROWS * (sizes.PROMPT + cfg.vq.tokens)
    say(step=result, tokens_s=tokens / result["seconds"], flop=trained_flops(cfg))


def run_part(name: str, limit: float) -> list[dict]:
    """A part in a process of its own: what it said. What it has said so far stays if it fails or takes too long."""
    environment = {
        **os.environ,
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95",
        "PYTHONUNBUFFERED": "1",
    }
    print(f"== {name}, at most {limit} s", flush=True)
    command = ["timeout", "-k", "5", str(limit), sys.executable, "-m", "benchmarks.gpu", "--part", name]
    process = subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, last = [], []
    for line in process.stdout:
        if line.startswith("{"):
            print(line, end="", flush=True)
            said.append(json.loads(line))
        else:
            last = [*last[-15:], line]
    if process.wait():
        print(f"exit status {process.returncode}\n{''.join(last)}", flush=True)
    return said


def summary(results) -> list[str]:
    """A line for each pair of numbers."""
    lines, top = [], (results.get("ceilings") or [{}])[0]
    theirs = {r["pictures"]: r["codes"]["seconds"] for r in results.get("hf_draw", [])}
    for r in results.get("ours_draw", []):
        if "lookahead" in r:
            lines.append(f"draw  1, passes of {r['lookahead']} codes, none guessed: {r['passes']['seconds']:.2f} s")
            continue
        seconds, hf = r["codes"]["seconds"], theirs.get(r["pictures"])
        share = r["least_bytes"] / seconds / 1e9 / top["copy_GB_s"] if top else float("nan")
        ratio = f"{hf:.2f} s, ratio {hf / seconds:.2f}" if hf else "not measured"
        lines.append(f"draw {r['pictures']:2}: {seconds:.2f} s, {share:.0%} of the copy's bytes per second; HF {ratio}")
    for side in ("ours_sft", "hf_sft"):
        for r in results.get(side, []):
            reached = r["flop"] / r["step"]["seconds"] / 1e12
            share = reached / top["matmul_TFLOP_s"] if top else float("nan")
            lines.append(f"{side}: {r['tokens_s']:.0f} tokens/s, {reached:.0f} TFLOP/s, {share:.0%} of a product's")
    return lines


def main():
    if sys.argv[1] == "--part":
        return {f.__name__: f for f in (ceilings, ours_draw, hf_draw, ours_sft, hf_sft)}[sys.argv[2]]()
    out, results = Path(sys.argv[1]), {}
    for name, limit in PARTS.items():
        results[name] = run_part(name, limit)
        (out / "gpu.json").write_text(json.dumps(results, indent=1) + "\n")
    print("\n".join(summary(results)), flush=True)
    return int(not all(results.values()))  # a part that said nothing has failed


if __name__ == "__main__":
    sys.exit(main())

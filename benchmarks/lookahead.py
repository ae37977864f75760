"""Exact lookahead on the shipped models: passes of the decoder and seconds per picture, for codes per pass.

    python -m benchmarks.lookahead

The shipped models are trained, so that their guesses mean something; the pictures are the same whatever the lookahead,
which is asserted. Prints a table and writes benchmarks/results/lookahead.json. A few minutes on two cores.
"""

import argparse
import json
import statistics
import time

import jax
import numpy as np

import janus_jax
from benchmarks.compare import RESULTS
from janus_jax import cli
from janus_jax.models.kv_cache import grown
from janus_jax.sampling import decode
from janus_jax.sampling.density import Sampling
from janus_jax.sequences.grammar import Grammar
from janus_jax.sequences.request import Request
from janus_jax.sequences.row import Row, collate
from janus_jax.shapes import text

MODELS = ("shapes-sft", "shapes-rl")
AHEAD = (1, 2, 4, 8, 16)
WEIGHTS = (1.0, 5.0)
PROMPTS = 24


def picture(model, params, processor, prompts, sampling):
    """(codes i32[B,I], passes of the decoder) of a picture of each prompt, drawn together."""
    grammar, rows = Grammar.of(model.cfg, processor.tokenizer), [Row() for _ in prompts]
    for row, prompt in zip(rows, prompts, strict=True):
        grammar.ask(row, Request(prompt))
    keys = np.stack([decode.row_key(0, Request(prompt), 0, 0) for prompt in prompts])
    batch = collate(rows, 64, processor.special.pad, guided=sampling.guided)
    cache, hidden = decode.prefill(model, params, batch, guided=sampling.guided)
    codes, passes = [], 0
    for first, count, slots in decode.parts(model.cfg.vq, 64, sampling.lookahead):
        part = decode.draw_part(
            model, params, grown(cache, slots), hidden, keys, sampling, sampling.guided, np.int32(first), count
        )
        cache, hidden, drawn, _, ran = part
        codes.append(np.asarray(drawn))
        passes += int(ran)
    return np.concatenate(codes, axis=1), passes


def measured(name: str, weight: float, together: int) -> list[dict]:
    """For each lookahead the mean passes of a picture and the median seconds, `together` pictures at a time."""
    model, params, processor = janus_jax.load(name)
    params = jax.block_until_ready(decode.prepared(params))
    prompts = [text.train_prompt(np.random.default_rng(n)) for n in range(PROMPTS)]
    rows, codes = [], {}
    for ahead in AHEAD:
        sampling = Sampling(cfg_weight=weight, lookahead=ahead)
        picture(model, params, processor, prompts[:together], sampling)  # compiles
        passes, seconds = [], []
        for begin in range(0, PROMPTS, together):
            start = time.perf_counter()
            drawn, ran = picture(model, params, processor, prompts[begin : begin + together], sampling)
            seconds.append(time.perf_counter() - start)
            passes.append(ran)
            assert (codes.setdefault(begin, drawn) == drawn).all(), "another picture"
        row = {"model": name, "guidance": weight, "pictures": together, "lookahead": ahead}
        rows.append({**row, "passes": statistics.mean(passes), "ms": 1000 * statistics.median(seconds)})
    return rows


def main(argv):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lookahead", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=1, help="pictures at a time (default: 1)")
    together = max(parser.parse_args(argv).pictures, 1)
    rows = [row for name in MODELS for weight in WEIGHTS for row in measured(name, weight, together)]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "lookahead.json").write_text(json.dumps(rows, indent=1) + "\n")
    print("| model | guidance | pictures at a time | " + " | ".join(f"W = {ahead}" for ahead in AHEAD) + " |")
    print("|---|---|---|" + "---|" * len(AHEAD))
    for begin in range(0, len(rows), len(AHEAD)):
        row, each = rows[begin], rows[begin : begin + len(AHEAD)]
        cells = " | ".join(f"{r['passes']:.1f}, {r['ms']:.0f} ms" for r in each)
        print(f"| {row['model']} | {row['guidance']:g} | {row['pictures']} | {cells} |")


if __name__ == "__main__":
    cli.run(main)

"""How time grows with size: random weights of `tiny` and what becomes of it when one number changes.

    python -m benchmarks.scaling

Pictures per second against pictures at a time; seconds of a picture against its codes; milliseconds of a code against
its place in a picture of 576; a training step against the length of its rows and the width of the decoder. Prints each
series with the exponent of the power of the size that fits it best (least squares of the logarithms), and writes
benchmarks/results/scaling.json. A few minutes on two cores.
"""

import argparse
import json
import math
import statistics
import time

import jax
import numpy as np

import janus_jax
from benchmarks import ours, sizes
from benchmarks.compare import RESULTS
from janus_jax import cli
from janus_jax.models.janus import init_params
from janus_jax.sampling import decode
from janus_jax.sampling.density import Sampling

TINY = sizes.SIZES["tiny"]
PICTURES = (1, 2, 4, 8, 16, 32, 64)
SIDES = (128, 192, 256, 384, 512)  # pixels of a picture: 64 to 1024 codes
WIDTHS = (128, 256, 384, 512)


def seconds(run, times: int) -> float:
    """The median of some runs after one that compiles."""
    run()
    spent = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        spent.append(time.perf_counter() - start)
    return statistics.median(spent)


def exponent(series: dict[int, float]) -> float:
    """The slope of log y over log x."""
    x, y = (np.log(np.array(list(each), float)) for each in (series, series.values()))
    return float(np.polyfit(x, y, 1)[0])


def made(cfg):
    model = janus_jax.Janus(cfg)
    return model, init_params(model, jax.random.key(0))


def drawing(side: int):
    """(the codes of a picture, f(pictures) that draws them)."""
    model, params = made(TINY.changed({"vq": {"image_size": side}}))
    laid = ours.prepared(model, params)
    return model.cfg.vq.tokens, lambda pictures: ours.draw(model, laid, pictures)


def places(cfg, times: int) -> dict[int, float]:
    """{codes drawn by the end of a part: median milliseconds of one of its codes}, four pictures of 576 codes."""
    model, params = made(cfg.changed({"vq": {"image_size": 384}}))
    laid, spent = ours.prepared(model, params), {}
    for run in range(times + 1):  # the first one compiles
        cache, hidden, keys = jax.block_until_ready(ours.begun(model, laid, sizes.PICTURES))
        sampling, drawn = Sampling(cfg_weight=sizes.GUIDANCE), 0
        start = time.perf_counter()
        for _, codes, _ in decode.drawing(model, laid, cache, hidden, keys, sampling, True, more=False):
            jax.block_until_ready(codes)
            now, count = time.perf_counter(), codes.shape[1]
            drawn += count
            spent.setdefault(drawn, []).extend([1000 * (now - start) / count] if run else [])
            start = now
    return {drawn: statistics.median(each) for drawn, each in spent.items()}


def training(side: int = 128, width: int = 256):
    """(tokens of a row, f() that takes a step of 4 draw rows)."""
    head = TINY.llama.head_dim
    changes = {"width": width, "heads": width // head, "kv_heads": width // head, "mlp": width * 11 // 4}
    model, params = made(TINY.changed({"vq": {"image_size": side}, "llama": changes}))
    return sizes.PROMPT + model.cfg.vq.tokens, ours.sft_step(model, params, 4)


def measured(times: int) -> dict[str, dict[int, float]]:
    """{name of a series: {size: number}}."""
    series = {"pictures_per_second_by_pictures": {}, "seconds_by_codes": {}, "step_by_length": {}, "step_by_width": {}}
    _, draw = drawing(128)
    for pictures in PICTURES:
        took = seconds(lambda pictures=pictures: draw(pictures), times)
        series["pictures_per_second_by_pictures"][pictures] = pictures / took
    for side in SIDES:
        codes, draw = drawing(side)
        series["seconds_by_codes"][codes] = seconds(lambda draw=draw: draw(1), times)
        length, step = training(side=side)
        series["step_by_length"][length] = seconds(step, times)
    for width in WIDTHS:
        series["step_by_width"][width] = seconds(training(width=width)[1], times)
    of_places = {f"milliseconds_by_place_{name}": places(cfg, times) for name, cfg in sizes.SIZES.items()}
    return series | of_places


def main(argv):
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each size (default: 3)")
    args = parser.parse_args(argv)
    series = measured(max(args.repeats, 1))
    fitted = {name: exponent(each) for name, each in series.items()}
    RESULTS.mkdir(exist_ok=True)
    result = {"series": series, "exponents": fitted, "repeats": args.repeats}
    (RESULTS / "scaling.json").write_text(json.dumps(result, indent=1) + "\n")
    for name, each in series.items():
        numbers = ", ".join(f"{size}: {_rounded(number)}" for size, number in each.items())
        print(f"{name}: {numbers}; exponent {fitted[name]:.2f}")


def _rounded(number):
    return f"{number:.{max(0, 2 - math.floor(math.log10(number)))}f}"


if __name__ == "__main__":
    cli.run(main)

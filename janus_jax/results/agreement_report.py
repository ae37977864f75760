"""How a judge agrees with labels, for reading: JSON values, a table, and the reliability curve drawn with Pillow."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from janus_jax.results import agreement
from janus_jax.results.layout import FAINT, INK, PAPER
from janus_jax.results.storyboard import YES

SIDE, LEFT, TOP, BELOW = 400, 64, 60, 96  # of the plot, and around it, in pixels
GRID = (226, 224, 218)


def report(p_yes, right, clusters, dev=None) -> dict:
    """The figures of N answers, as JSON values; what is not known is None. clusters [N]: see scores.clustered. dev:
    (p_yes, right) of other answers, on which a threshold is chosen: "fitted" has the figures at it. Raises ValueError
    where these have one label alone."""
    curve = agreement.reliability(p_yes, right)
    bins = len(curve.count)
    shown = {
        **_at(0.5, p_yes, right, clusters),
        "ece": _number(curve.error),
        "reliability": [
            {"from": i / bins, "to": (i + 1) / bins, "n": int(n), "p_yes": _number(p), "right": _number(r)}
            for i, (n, p, r) in enumerate(zip(curve.count, curve.p_yes, curve.right, strict=True))
        ],
    }
    if dev is None:
        return shown
    threshold = agreement.best_threshold(*dev)
    on_dev, _ = agreement.balanced_accuracy(*dev, range(len(dev[0])), threshold)
    return shown | {"fitted": {"balanced_accuracy_dev": _number(on_dev), **_at(threshold, p_yes, right, clusters)}}


def _at(threshold, p_yes, right, clusters) -> dict:
    measures = {"accuracy": agreement.accuracy, "balanced_accuracy": agreement.balanced_accuracy}
    found = {name: measure(p_yes, right, clusters, threshold) for name, measure in measures.items()}
    return {
        "threshold": threshold,
        **{name: _number(mean) for name, (mean, _) in found.items()},
        "stderr": {name: _number(error) for name, (_, error) in found.items()},
        "confusion": agreement.confusion(p_yes, right, threshold),
    }


def _number(value) -> float | None:
    return None if np.isnan(value) else round(float(value), 5)


def table(reported: dict) -> str:
    """A report in lines of text."""

    def number(found, name):
        mean, error = found[name], found["stderr"][name]
        return "unknown" if mean is None else f"{mean:.3f}" + ("" if error is None else f" ± {error:.3f}")

    lines = [f"calibration error {reported['ece']:.3f}"]
    for name, found in (("", reported), (" (fitted)", reported.get("fitted"))):
        if found:
            lines += [
                f"Yes from P(yes) = {found['threshold']:.4g}{name}: accuracy {number(found, 'accuracy')}, "
                f"balanced {number(found, 'balanced_accuracy')}",
                f"{'':8}{'said yes':>10}{'said no':>10}",
                *(f"{label:8}{row['yes']:10d}{row['no']:10d}" for label, row in found["confusion"].items()),
            ]
    return "\n".join(lines)


def draw(curve: agreement.Reliability, title: str) -> Image.Image:
    """Share of right pictures over mean P(yes), one dot per bin that is not empty, its area by its count; below, how
    many pictures lie in each bin. The diagonal is perfect calibration. Returns an RGB PIL image."""
    board = Image.new("RGB", (LEFT + SIDE + 24, TOP + SIDE + BELOW + 56), PAPER)
    pen = ImageDraw.Draw(board)
    large, small = (ImageFont.load_default(size) for size in (17, 13))
    pen.text((LEFT, 14), title, font=large, fill=INK)
    pen.text((LEFT, 36), f"expected calibration error {curve.error:.3f}", font=small, fill=FAINT)

    def place(x, y):
        return LEFT + x * SIDE, TOP + (1 - y) * SIDE

    for tick in np.linspace(0, 1, 6):
        pen.line((place(0, tick), place(1, tick)), fill=GRID)
        pen.line((place(tick, 0), place(tick, 1)), fill=GRID)
        pen.text((LEFT - 20, place(0, tick)[1]), f"{tick:.1f}", font=small, fill=FAINT, anchor="rm")
        pen.text((place(tick, 0)[0], TOP + SIDE + BELOW + 8), f"{tick:.1f}", font=small, fill=FAINT, anchor="mt")
    pen.line((place(0, 0), place(1, 1)), fill=FAINT)
    filled = curve.count > 0
    dots = [place(x, y) for x, y in zip(curve.p_yes[filled], curve.right[filled], strict=True)]
    if len(dots) > 1:
        pen.line(dots, fill=YES, width=2)
    for dot, count in zip(dots, curve.count[filled], strict=True):
        pen.circle(dot, 4 + 10 * np.sqrt(count / curve.count.max()), fill=YES)
    _counts(pen, curve.count, small)
    pen.text((LEFT, TOP + SIDE + BELOW + 30), "P(yes); up: share of right pictures", font=small, fill=INK)
    return board


def _counts(pen, count, font):
    """A bar for each bin, with its number."""
    width, bottom, height = SIDE / len(count), TOP + SIDE + BELOW, BELOW - 36
    for i, n in enumerate(count):
        left, top = LEFT + i * width, bottom - height * n / max(count.max(), 1)
        pen.rectangle((left + 2, top, left + width - 2, bottom), fill=FAINT if n else GRID)
        pen.text((left + width / 2, top - 2), str(n), font=font, fill=FAINT, anchor="mb")

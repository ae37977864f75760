"""Curves over steps as inline SVG. A curve is [(step, value)] in order of steps; a NaN is a step without a value."""

import math

from janus_jax.results.webpage import escaped

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 460, 190, 56, 22, 8  # of a panel, in pixels
POINTS = 600  # of a curve at most: more than a panel has pixels
# Colour, width and dashes: those on top are thinner and broken, so that lines that coincide are all seen.
LINES = (
    ("#1b6ca8", 3.2, None),
    ("#e08214", 2.0, "7 5"),
    ("#2e8b57", 1.6, "2 4"),
    ("#8a5fbf", 1.4, "9 3 2 3"),
)


def smooth(values, window: int) -> list[float]:
    """Mean of the last `window` values, at every one."""
    return [sum(part) / len(part) for part in (values[max(0, i + 1 - window) : i + 1] for i in range(len(values)))]


def known(curve) -> list:
    """The points that have a value."""
    return [(step, value) for step, value in curve if math.isfinite(value)]


def pieces(curve) -> list[list]:
    """The parts of a curve between its gaps."""
    found = [[]]
    for step, value in curve:
        if math.isfinite(value):
            found[-1].append((step, value))
        elif found[-1]:
            found.append([])
    return [piece for piece in found if piece]


def gaps(curve) -> list[tuple[int, int]]:
    """(first, last) step of each run of steps without a value."""
    found, open_ = [], False
    for step, value in curve:
        if math.isfinite(value):
            open_ = False
        elif open_:
            found[-1] = found[-1][0], step
        else:
            found.append((step, step))
            open_ = True
    return found


def thinned(points, most: int = POINTS) -> list:
    """The lowest and the highest point of each of most / 2 equal stretches, where there are more than `most`."""
    if len(points) <= most:
        return list(points)
    kept = []
    for i in range(most // 2):
        part = points[i * len(points) // (most // 2) : (i + 1) * len(points) // (most // 2)]
        ends = {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
        kept += sorted(ends)
    return kept


def panel(title: str, curves: dict, said: dict | None = None) -> str:
    """One figure: each curve faint, and over it the mean of its last twentieth; grey where a curve has no value. said:
    of some curves a sentence for the legend."""
    every = [point for curve in curves.values() for point in known(curve)]
    if not every:
        return ""
    place, marks = _axes(every)
    legend = []
    for (color, width, dashes), (name, curve) in zip(_lines(len(curves)), curves.items(), strict=True):
        marks += [_gap(place, *gap) for gap in gaps(curve)]
        points = known(curve)
        means = smooth([value for _, value in points], max(len(points) // 20, 1))
        meant = {step: mean for (step, _), mean in zip(points, means, strict=True)}
        for piece in pieces(curve):
            marks.append(_line(place, thinned(piece), color, 1, None, 0.25))
            over = [(step, meant[step]) for step, _ in piece]
            marks.append(_line(place, thinned(over), color, width, dashes, 1))
        sample = _line(lambda x, y: f"{x},{y}", [(0, 5), (34, 5)], color, width, dashes, 1)
        sentence = f" {escaped(said[name])}" if said and said.get(name) else ""
        legend.append(
            f'<div><svg class="sample" viewBox="0 0 34 10" width="34" height="10">{sample}</svg> '
            f"<b>{escaped(name)} {means[-1]:.4g}</b>{sentence}</div>"
        )
    return (
        f"<figure><figcaption>{escaped(title)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(marks)}</svg>{"".join(legend)}</figure>'
    )


def _lines(count):
    return [LINES[i % len(LINES)] for i in range(count)]


def _axes(points):
    """(place(step, value) -> "x,y", the grid's marks) for all points of a panel."""
    steps, heights = zip(*points, strict=True)
    low, high = min(heights), max(heights)
    if high - low < 1e-9 * max(abs(high), 1.0):  # a constant lies in the middle
        low, high = low - 0.5 * max(abs(low), 1e-3), high + 0.5 * max(abs(high), 1e-3)
    first, last = min(steps), max(max(steps), min(steps) + 1)

    def place(step, value):
        x = LEFT + (min(max(step, first), last) - first) / (last - first) * (WIDTH - LEFT - 8)
        y = TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)
        return f"{x:.1f},{y:.1f}"

    marks = []
    for i in range(5):
        value = low + (high - low) * i / 4
        y = TOP + (4 - i) / 4 * (HEIGHT - TOP - BOTTOM)
        marks.append(f'<line x1="{LEFT}" x2="{WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e6e4de"/>')
        marks.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for step, anchor, x in ((first, "start", LEFT), (last, "end", WIDTH - 8)):
        marks.append(f'<text x="{x}" y="{HEIGHT - 6}" text-anchor="{anchor}">{step}</text>')
    return place, marks


def _line(place, points, color, width, dashes, opacity):
    path = " ".join(place(step, value) for step, value in points)
    if len(points) == 1:  # a line of one point is nothing
        x, y = path.split(",")
        return f'<circle cx="{x}" cy="{y}" r="{width / 2 + 0.8}" fill="{color}" opacity="{opacity}"/>'
    broken = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width}"{broken} opacity="{opacity}"/>'
    )


def _gap(place, first, last):
    """A grey bar over the steps that have no value."""
    left, right = (float(place(step, 0).split(",")[0]) for step in (first, last))
    return (
        f'<rect class="gap" x="{left - 1.5:.1f}" y="{TOP}" width="{right - left + 3:.1f}" '
        f'height="{HEIGHT - TOP - BOTTOM}" fill="#78788022"/>'
    )

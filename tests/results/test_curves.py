"""Curves: where points lie, gaps, lines that coincide, and long trainings."""

import math
import re

from janus_jax.results import curves

NAN = math.nan


def polylines(svg):
    """[(points, attributes)] of the panel, without the legend's samples."""
    svg = re.sub(r'<svg class="sample".*?</svg>', "", svg)
    return [
        ([tuple(map(float, point.split(","))) for point in points.split()], rest)
        for points, rest in re.findall(r'<polyline points="([^"]+)"([^>]*)>', svg)
    ]


def test_smooth():
    assert curves.smooth([1.0, 3.0, 5.0, 7.0], 2) == [1.0, 2.0, 4.0, 6.0]


def test_extremes_lie_at_the_edges():
    svg = curves.panel("a & b", {"x": [(0, 0.0), (10, 1.0)]})
    low, high = curves.HEIGHT - curves.BOTTOM, curves.TOP
    assert polylines(svg)[0][0] == [(curves.LEFT, low), (curves.WIDTH - 8, high)] and "a &amp; b" in svg


def test_gaps_are_shown():
    curve = [(1, 0.0), (2, 1.0), (3, NAN), (4, NAN), (5, 1.0), (6, NAN), (7, 0.0), (8, 0.0)]
    assert curves.gaps(curve) == [(3, 4), (6, 6)]
    assert curves.pieces(curve) == [[(1, 0.0), (2, 1.0)], [(5, 1.0)], [(7, 0.0), (8, 0.0)]]
    svg = curves.panel("t", {"x": curve})
    assert svg.count('class="gap"') == 2
    assert len(polylines(svg)) == 4 and svg.count("<circle") == 2  # faint and strong; a lonely value is a dot
    assert curves.panel("t", {"x": [(1, NAN)]}) == ""


def test_steps_that_were_not_written_are_no_gap():
    assert curves.gaps([(10, 0.5), (20, 0.6)]) == [] and len(curves.pieces([(10, 0.5), (20, 0.6)])) == 1


def test_lines_that_coincide_are_told_apart():
    values = [(n, n / 10) for n in range(10)]
    strong = [rest for _, rest in polylines(curves.panel("t", dict.fromkeys("abc", values))) if 'opacity="1"' in rest]
    widths = [float(re.search(r'stroke-width="([\d.]+)"', rest).group(1)) for rest in strong]
    assert widths == sorted(widths, reverse=True) and len(set(widths)) == 3  # what is below looks out
    assert ["dasharray" in rest for rest in strong] == [False, True, True]
    assert len({re.search(r'stroke="([^"]+)"', rest).group(1) for rest in strong}) == 3


def test_long_trainings_keep_their_peaks():
    values = [(n, 0.0) for n in range(100_000)]
    values[51_234] = (51_234, 7.0)
    thin = curves.thinned(values)
    assert len(thin) <= curves.POINTS and (51_234, 7.0) in thin and thin == sorted(thin)
    assert curves.thinned(values[:10]) == values[:10]
    assert len(curves.panel("t", {"x": values})) < 40_000

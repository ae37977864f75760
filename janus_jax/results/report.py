"""A static report of a training, from what lies in its workdir: curves of all metrics and the storyboards.

    python -m janus_jax.report --workdir runs/rl0

writes `report.html` there, which opens from disk: no server, no script, no network. Stage 2 writes it by itself
whenever it draws a storyboard.
"""

import html
import json
import math
import os
from pathlib import Path

from janus_jax.errors import UserError

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 460, 190, 56, 22, 8  # of a panel, in pixels
COLORS = ("#1b6ca8", "#c2452d", "#2e8b57", "#8a5fbf")
# Metrics that are read together; every other one has a panel of its own.
PANELS = {
    "right pictures": ("right_first", "right_final"),
    "reward": ("reward_first", "reward_final"),
    "spread of the reward within a group": ("spread_first", "spread_final"),
    "what trains, by segment": ("trained_first", "trained_text", "trained_final"),
    "its spread within a group": ("spread_trained_first", "spread_trained_text", "spread_trained_final"),
    "repair and spoil rate": ("repair_rate", "spoil_rate"),
    "says Yes": ("yes_rate", "yes_of_right", "yes_of_wrong"),
    "verdict and judge": ("agreement", "calibration_error", "retention"),
    "entropy": ("entropy_codes", "entropy_text"),
    "share of groups that teach nothing": ("idle_first", "idle_text", "idle_final"),
    "share of groups left out": ("dropped_first", "dropped_text", "dropped_final"),
    "seconds": ("seconds_draw", "seconds_judge", "seconds_score", "seconds_train"),
}
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222228; background: #fcfbf8; margin: 2em auto; max-width: 1000px }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(460px, 1fr)); gap: 18px }
figure { margin: 0 } figcaption { font-weight: 600 } svg text { font-size: 11px; fill: #666670 }
img { max-width: 100%; border: 1px solid #e2e0da } td, th { padding: 1px 14px 1px 0; text-align: right }
td:first-child, th:first-child { text-align: left }
"""


def read(workdir) -> dict[str, list[tuple[int, float]]]:
    """name -> [(step, value)] of `metrics.jsonl`, in order. What was written twice counts as written last; missing
    values are left out, and so are lines that a kill cut short. Raises UserError where there are none."""
    path = Path(workdir) / "metrics.jsonl"
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}): --workdir takes the folder of a training") from error
    by_name = {}
    for line in lines:
        try:
            said = json.loads(line)
            step = int(said["step"])
        except (ValueError, TypeError, KeyError):
            continue
        for name, value in said.items():
            if name not in ("stage", "step") and isinstance(value, (int, float)):
                by_name.setdefault(name, {})[step] = value
    if not by_name and any(line.strip() for line in lines):
        raise UserError(f"{path} cannot be read (no line is one of metrics): --workdir takes the folder of a training")
    return {name: sorted(values.items()) for name, values in by_name.items()}


def smooth(values, window: int) -> list[float]:
    """Mean of the last `window` values, at every one."""
    return [sum(part) / len(part) for part in (values[max(0, i + 1 - window) : i + 1] for i in range(len(values)))]


def panel(title: str, curves: dict) -> str:
    """One figure as inline SVG: each curve faint, and over it the mean of its last twentieth."""
    points = [point for values in curves.values() for point in values]
    steps, heights = zip(*points, strict=True)
    low, high = min(heights), max(heights)
    if high - low < 1e-9 * max(abs(high), 1.0):  # a constant lies in the middle
        low, high = low - 0.5 * max(abs(low), 1e-3), high + 0.5 * max(abs(high), 1e-3)
    first, last = min(steps), max(max(steps), min(steps) + 1)

    def place(step, value):
        x = LEFT + (step - first) / (last - first) * (WIDTH - LEFT - 8)
        y = TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)
        return f"{x:.1f},{y:.1f}"

    def line(values, color, width, opacity):
        path = " ".join(place(step, value) for step, value in values)
        return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{width}" opacity="{opacity}"/>'

    marks = []
    for i in range(5):
        value = low + (high - low) * i / 4
        y = TOP + (4 - i) / 4 * (HEIGHT - TOP - BOTTOM)
        marks.append(f'<line x1="{LEFT}" x2="{WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e6e4de"/>')
        marks.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for step, anchor, x in ((first, "start", LEFT), (last, "end", WIDTH - 8)):
        marks.append(f'<text x="{x}" y="{HEIGHT - 6}" text-anchor="{anchor}">{step}</text>')
    legend = []
    for color, (name, values) in zip(COLORS, curves.items(), strict=False):
        means = smooth([value for _, value in values], max(len(values) // 20, 1))
        marks.append(line(values, color, 1, 0.25))
        marks.append(line([(step, mean) for (step, _), mean in zip(values, means, strict=True)], color, 1.8, 1))
        legend.append(f'<span style="color:{color}">{html.escape(name)} {means[-1]:.4g}</span>')
    return (
        f"<figure><figcaption>{html.escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(marks)}</svg><div>{" · ".join(legend)}</div></figure>'
    )


def page(metrics: dict, storyboards, title: str) -> str:
    """The whole page. metrics: see `read`; storyboards: names of pictures beside the page."""
    grouped = {name for names in PANELS.values() for name in names}
    panels = {title: [name for name in names if name in metrics] for title, names in PANELS.items()}
    panels |= {name: [name] for name in metrics if name not in grouped}
    figures = [panel(title, {name: metrics[name] for name in names}) for title, names in panels.items() if names]
    rows = []
    for name, values in metrics.items():
        tenth = max(len(values) // 10, 1)
        early, late = (sum(v for _, v in part) / tenth for part in (values[:tenth], values[-tenth:]))
        rows.append(f"<tr><td>{html.escape(name)}</td><td>{early:.4g}</td><td>{late:.4g}</td></tr>")
    boards = [f'<h3>{html.escape(name)}</h3><img src="{html.escape(name)}" alt="">' for name in storyboards]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style><h1>{html.escape(title)}</h1>"
        f'<div class="panels">{"".join(figures)}</div><h2>Storyboards</h2>{"".join(boards) or "none yet"}'
        "<h2>First and last tenth</h2><table><tr><th>metric</th><th>first</th><th>last</th></tr>"
        f"{''.join(rows)}</table></html>\n"
    )


def write(workdir) -> Path:
    """Writes `report.html` into a training's workdir; it appears once it is complete. Newest storyboards first. Raises
    UserError where there are no metrics, or the place cannot be written."""
    workdir = Path(workdir)
    metrics = {
        name: finite
        for name, values in read(workdir).items()
        if (finite := [(step, value) for step, value in values if math.isfinite(value)])
    }
    boards = sorted((path.name for path in workdir.glob("storyboard_*.png")), reverse=True)
    out = workdir / "report.html"
    scratch = workdir / f".report.{os.getpid()}.html"
    try:
        scratch.write_text(page(metrics, boards, str(workdir)), encoding="utf-8")
        scratch.replace(out)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise UserError(f"cannot write {out}: {error.strerror}") from error
    return out

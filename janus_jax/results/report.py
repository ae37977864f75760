"""The report of a training, from what lies in its workdir: its storyboards, and curves of all metrics by topic."""

import json
import math
import os
from pathlib import Path

from janus_jax.errors import UserError
from janus_jax.results import curves, glossary
from janus_jax.results.webpage import document, escaped, image, settings

STYLE = """
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(440px, 100%), 1fr)); gap: 22px }
figcaption { font-weight: 600 } figure svg text { font-size: 11px; fill: #666670 } figure div { font-size: 13px }
svg.sample { vertical-align: middle } img { border: 1px solid #e2e0da; display: block; margin: 4px 0 16px }
"""


def read(workdir) -> dict[str, list[tuple[int, float]]]:
    """name -> [(step, value)] of `metrics.jsonl`, in order; a step without a value has NaN. What was written twice
    counts as written last; lines that a kill cut short are left out. Raises UserError where there are none."""
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
            if name not in ("stage", "step") and (value is None or isinstance(value, (int, float))):
                by_name.setdefault(name, {})[step] = math.nan if value is None else value
    if not by_name and any(line.strip() for line in lines):
        raise UserError(f"{path} cannot be read (no line is one of metrics): --workdir takes the folder of a training")
    return {name: sorted(values.items()) for name, values in by_name.items()}


def page(metrics: dict, storyboards, title: str, facts: dict | None = None) -> str:
    """The whole page. metrics: see `read`; storyboards: names of pictures beside the page, the newest first; facts:
    the training's settings by name."""
    there = {name: curve for name, curve in metrics.items() if curves.known(curve)}
    absent = [name for name in metrics if name not in there]
    last = max((step for curve in there.values() for step, _ in curve), default=0)
    parts = [f'<p class="faint">step {last}</p>', settings(facts or {}), _boards(storyboards)]
    for topic, panels in glossary.grouped(there).items():
        figures = (
            curves.panel(panel, {name: there[name] for name in names}, {name: _sentence(name) for name in names})
            for panel, names in panels.items()
        )
        parts.append(f'<h2>{escaped(topic)}</h2><div class="panels">{"".join(figures)}</div>')
    parts.append(_tenths(there))
    if absent:
        parts.append(f'<p class="faint">Without a value in every step: {escaped(", ".join(absent))}.</p>')
    return document(title, "\n".join(parts), STYLE)


def _sentence(metric: str) -> str:
    found = glossary.entry(metric)
    return found[2] if found else ""


def _boards(names) -> str:
    """The newest storyboard, and the others folded up."""
    boards = [f"<h3>{escaped(name)}</h3>{image(name)}" for name in names]
    if not boards:
        return ""
    earlier = f"<details><summary>{len(boards) - 1} earlier</summary>{''.join(boards[1:])}</details>"
    return f"<h2>Storyboards</h2>{boards[0]}{earlier if boards[1:] else ''}"


def _tenths(metrics) -> str:
    """The means of the first and the last tenth of each curve, as a table."""
    rows = []
    for name, curve in metrics.items():
        values = [value for _, value in curves.known(curve)]
        tenth = max(len(values) // 10, 1)
        cells = (f'<td class="number">{sum(part) / tenth:.4g}</td>' for part in (values[:tenth], values[-tenth:]))
        rows.append(f"<tr><td>{escaped(name)}</td>{''.join(cells)}</tr>")
    head = '<tr><th>metric</th><th class="number">first</th><th class="number">last</th></tr>'
    return f"<h2>First and last tenth</h2><table>{head}{''.join(rows)}</table>"


def write(workdir) -> Path:
    """Writes `report.html` into a training's workdir; it appears once it is complete. Raises UserError where there are
    no metrics, or the place cannot be written."""
    workdir = Path(workdir)
    metrics = read(workdir)
    try:
        facts = json.loads((workdir / "settings.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # nothing was saved yet
        facts = {}
    boards = sorted((path.name for path in workdir.glob("storyboard_*.png")), reverse=True)
    out = workdir / "report.html"
    scratch = workdir / f".report.{os.getpid()}.html"
    try:
        scratch.write_text(page(metrics, boards, workdir.resolve().name, facts), encoding="utf-8")
        scratch.replace(out)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise UserError(f"cannot write {out}: {error.strerror}") from error
    return out

"""Compares evaluations pairwise, as Markdown tables:

    python -m janus_jax.compare --baseline runs/eval_sft.json runs/eval_rl0.json runs/eval_rl1.json runs/eval_rl2.json

All files must come from the same prompts and samples. Errors within a run are clustered by prompt; across runs
(seeds) they are the standard error of the runs' means.
"""

import json
import math
from pathlib import Path

import numpy as np

from janus_jax.errors import UserError
from janus_jax.results import scores

# Repair: wrong first pictures whose final one is right. Spoil: right first ones whose final one is wrong. Agreement:
# verdict = verifier; balanced: the mean of that over right and over wrong pictures.
RATES = (
    ("repair_rate", "repair rate"),
    ("spoil_rate", "spoil rate"),
    ("judge_agreement", "agreement, all judged pictures"),
    ("judge_agreement_balanced", "agreement, balanced"),
    ("rounds_used", "pictures drawn per prompt"),
)


def read(path):
    """(report, {(prompt, sample): (first, final)}) of an evaluation. Raises UserError where it is not one."""
    try:
        report = json.loads(path.read_text())
        lines = path.with_suffix(".trajectories.jsonl").read_text().splitlines()
        outcomes = {}
        for line in lines:
            t = json.loads(line)
            outcomes[t["prompt"], t["sample"]] = (float(t["right"][0]), float(t["right"][t["final"]]))
        return report, outcomes
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} is not an evaluation with its .trajectories.jsonl: make it with janus_jax.evaluate"
        ) from error


def paired(a, b, stage: int):
    """(mean, standard error) of b - a at a stage (0 first, 1 final), paired by prompt and sample, clustered by
    prompt."""
    if a.keys() != b.keys():
        raise UserError("the evaluations are of different prompts or samples: evaluate both with the same flags")
    keys = sorted(a)
    return scores.clustered([b[key][stage] - a[key][stage] for key in keys], [prompt for prompt, _ in keys])


def number(mean, error, sign=""):
    """A mean with its error as text; what is not known is a dash."""
    if mean is None or math.isnan(mean):
        return "–"
    return f"{mean:{sign}.3f}" if error is None or math.isnan(error) else f"{mean:{sign}.3f} ± {error:.3f}"


def across(values, sign=""):
    """Mean and standard error over runs, as text; one run has no error."""
    values = np.array([value for value in values if value is not None], float)
    if len(values) < 2:
        return number(values[0] if len(values) else None, None, sign)
    return number(values.mean(), values.std(ddof=1) / np.sqrt(len(values)), sign)


def pooled(a, runs, stage: int):
    """(mean, standard error) of the mean over runs of b - a at a stage, paired by prompt and sample, clustered by
    prompt: the error that is left where the runs themselves are taken as given."""
    for b in runs:
        paired(a, b, stage)  # the same prompts and samples
    keys = sorted(a)
    return scores.clustered(
        [np.mean([b[key][stage] for b in runs]) - a[key][stage] for key in keys], [prompt for prompt, _ in keys]
    )


def tables(baseline, runs) -> str:
    """Markdown: accuracies, categories, rates, and paired differences. baseline and runs are results of `read`."""
    report, outcomes = baseline
    reports, results = zip(*runs, strict=True)
    names = [Path(r["checkpoint"]).name for r in reports]

    def own(r, key):
        """A figure of one report with its error; key: its path."""
        value, error = r, r["stderr"]
        for part in key:
            value, error = value[part], error[part] if part in error else error
        return number(value, error)

    def figures(stage):
        return [number(r["overall"][stage], r["stderr"][stage]) for r in (report, *reports)]

    first, final = figures("first"), figures("final")
    lines = ["| | first picture | after introspection |", "|---|---|---|", f"| after SFT | {first[0]} | {final[0]} |"]
    lines += [f"| after RL, {n} | {a} | {b} |" for n, a, b in zip(names, first[1:], final[1:], strict=True)]
    mean = [across([r["overall"][s] for r in reports]) for s in ("first", "final")]
    lines.append(f"| **after RL, {len(reports)} seeds** | **{mean[0]}** | **{mean[1]}** |")
    lines += ["", "| category | SFT first | SFT final | RL first | RL final |", "|---|---|---|---|---|"]
    for name in report["categories"]:
        cells = [own(report, ("categories", name, s)) for s in ("first", "final")]
        cells += [across([r["categories"][name][s] for r in reports]) for s in ("first", "final")]
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
    lines += ["", "| | SFT | RL |", "|---|---|---|"]
    lines += [f"| {title} | {own(report, (key,))} | {across([r[key] for r in reports])} |" for key, title in RATES]
    lines += [
        "",
        "| paired difference | first picture | after introspection | introspection's gain |",
        "|---|---|---|---|",
    ]
    for n, r, result in zip(names, reports, results, strict=True):
        cells = [number(*paired(outcomes, result, stage), "+") for stage in (0, 1)]
        lines.append(f"| {n} − SFT | {' | '.join(cells)} | {number(r['gain'], r['stderr']['gain'], '+')} |")
    if len(runs) > 1:
        cells = [number(*pooled(outcomes, results, stage), "+") for stage in (0, 1)]
        gains = across([r["gain"] for r in reports], "+")
        lines.append(f"| mean of {len(runs)} − SFT, error over prompts | {' | '.join(cells)} | |")
        cells = [across([paired(outcomes, result, stage)[0] for result in results], "+") for stage in (0, 1)]
        lines.append(f"| mean of {len(runs)} − SFT, error over runs | {' | '.join(cells)} | {gains} |")
    lines.append(f"| SFT | | | {number(report['gain'], report['stderr']['gain'], '+')} |")
    return "\n".join(lines)

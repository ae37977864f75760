"""Compares evaluations pairwise, as Markdown tables:

    python -m janus_jax.compare --baseline runs/eval_sft.json runs/eval_rl0.json runs/eval_rl1.json runs/eval_rl2.json

All files must come from the same prompts and samples. Errors within a run are clustered by prompt; across runs
(seeds) they are the standard error of the runs' means.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from janus_jax import cli, scores
from janus_jax.errors import UserError

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


def across(values):
    """Mean and standard error over runs, as text; one run has no error."""
    values = np.array(values, float)
    if len(values) < 2:
        return f"{values[0]:.3f}"
    return f"{values.mean():.3f} ± {values.std(ddof=1) / np.sqrt(len(values)):.3f}"


def tables(baseline, runs) -> str:
    """Markdown: accuracies, categories, rates, and paired differences."""
    report, outcomes = baseline
    reports, results = zip(*runs, strict=True)
    errors = report["stderr"]

    def own(stage):
        return f"{report['overall'][stage]:.3f} ± {errors[stage]:.3f}"

    lines = ["| | first picture | after introspection |", "|---|---|---|"]
    lines.append(f"| after SFT | {own('first')} | {own('final')} |")
    for i, r in enumerate(reports):
        cells = [f"{r['overall'][s]:.3f} ± {r['stderr'][s]:.3f}" for s in ("first", "final")]
        lines.append(f"| after RL, seed {r.get('training_seed', i)} | {cells[0]} | {cells[1]} |")
    mean = [across([r["overall"][s] for r in reports]) for s in ("first", "final")]
    lines.append(f"| **after RL, {len(reports)} seeds** | **{mean[0]}** | **{mean[1]}** |")
    lines += ["", "| category | SFT first | SFT final | RL first | RL final |", "|---|---|---|---|---|"]
    for name, row in report["categories"].items():
        cells = [f"{row[s]:.3f} ± {errors['categories'][name][s]:.3f}" for s in ("first", "final")]
        cells += [across([r["categories"][name][s] for r in reports]) for s in ("first", "final")]
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
    lines += ["", "| | SFT | RL |", "|---|---|---|"]
    for key, title in RATES:
        cells = [f"{report[key]:.3f} ± {errors[key]:.3f}", across([r[key] for r in reports])]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    lines += [
        "",
        "| paired difference | first picture | after introspection | introspection's gain |",
        "|---|---|---|---|",
    ]
    for i, (r, result) in enumerate(runs):
        cells = [paired(outcomes, result, stage) for stage in (0, 1)] + [(r["gain"], r["stderr"]["gain"])]
        text = " | ".join(f"{value:+.3f} ± {error:.3f}" for value, error in cells)
        lines.append(f"| RL seed {i} − SFT | {text} |")
    lines.append(f"| SFT | | | {report['gain']:+.3f} ± {errors['gain']:.3f} |")
    return "\n".join(lines)


def main(argv):
    parser = argparse.ArgumentParser(
        prog="python -m janus_jax.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--baseline", required=True, type=Path)
    parser.add_argument("runs", nargs="+", type=Path)
    args = parser.parse_args(argv)
    print(tables(read(args.baseline), [read(path) for path in args.runs]))


if __name__ == "__main__":
    cli.run(main)

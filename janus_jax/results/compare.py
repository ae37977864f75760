"""Compares evaluations pairwise, as Markdown tables:

    python -m janus_jax.compare --baseline runs/eval_sft.json runs/eval_rl0.json runs/eval_rl1.json runs/eval_rl2.json

All files must come from the same prompts and samples. Errors within a run are clustered by prompt and, in parentheses,
by the held-out combination that prompts share; across runs (seeds) they are the standard error of the runs' means.
"""

import functools
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
    ("contradictions", "verdicts that their words contradict"),
    ("verifier_agreement", "pictures of which two verifiers say the same"),
)
OF_CATEGORIES = (("first", "first"), ("final", "final"), ("yes_of_wrong", "Yes to wrong"))


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


def paired(a, b, stage: int, combinations=None):
    """(mean, standard error) of b - a at a stage (0 first, 1 final), paired by prompt and sample, clustered by prompt,
    or by what `combinations` has for each prompt."""
    if a.keys() != b.keys():
        raise UserError("the evaluations are of different prompts or samples: evaluate both with the same flags")
    keys = sorted(a)
    return scores.clustered([b[key][stage] - a[key][stage] for key in keys], _clusters(keys, combinations))


def _clusters(keys, combinations):
    return [combinations[prompt] if combinations else prompt for prompt, _ in keys]


def number(mean, error, sign="", wider=None):
    """A mean with its error as text, and a second error; what is not known is a dash, or is not there."""
    if mean is None or math.isnan(mean):
        return "–"
    known = [each for each in (error, wider) if each is not None and not math.isnan(each)]
    text = f"{mean:{sign}.3f}" + (f" ± {known[0]:.3f}" if known else "")
    return text + (f" ({known[1]:.3f})" if len(known) == 2 else "")


def across(values, sign=""):
    """Mean and standard error over runs, as text; one run has no error."""
    values = np.array([value for value in values if value is not None], float)
    if len(values) < 2:
        return number(values[0] if len(values) else None, None, sign)
    return number(values.mean(), values.std(ddof=1) / np.sqrt(len(values)), sign)


def pooled(a, runs, stage: int, combinations=None):
    """(mean, standard error) of the mean over runs of b - a at a stage, paired by prompt and sample, clustered as in
    `paired`: the error that is left where the runs themselves are taken as given."""
    for b in runs:
        paired(a, b, stage)  # the same prompts and samples
    keys = sorted(a)
    return scores.clustered(
        [np.mean([b[key][stage] for b in runs]) - a[key][stage] for key in keys], _clusters(keys, combinations)
    )


def names_of(checkpoints) -> list[str]:
    """What to call them: the last parts of their paths, as many as tell them apart."""
    paths = [Path(checkpoint).parts for checkpoint in checkpoints]
    for count in range(1, max(map(len, paths)) + 1):
        names = ["/".join(parts[-count:]) for parts in paths]
        if len(set(names)) == len(set(checkpoints)):
            break
    return names


def tables(baseline, runs) -> str:
    """Markdown: accuracies, categories, rates, and paired differences. baseline and runs are results of `read`, called
    by their checkpoints."""
    report, outcomes = baseline
    reports, results = zip(*runs, strict=True)
    names = names_of([r["checkpoint"] for r in (report, *reports)])
    whose = zip(names, (report, *reports), strict=True)
    base, *names = [f"{name}, {r['again']}" if r.get("again") else name for name, r in whose]

    def own(r, key):
        """A figure of one report with its errors; key: its path, where `overall` is no part of the errors'."""
        value, errors = r, [r[name] for name in ("stderr", "stderr_by_combination") if name in r]
        for part in key:
            value = value.get(part)
            errors = [error.get(part) if part != "overall" else error for error in errors]
        return number(value, errors[0], wider=errors[1] if len(errors) > 1 else None)

    def difference(of, stage):
        """of: paired or pooled with its first arguments."""
        (mean, error), wider = of(stage), None
        if "combinations" in report:
            wider = of(stage, report["combinations"])[1]
        return number(mean, error, "+", wider)

    def figures(stage):
        return [own(r, ("overall", stage)) for r in (report, *reports)]

    first, final = figures("first"), figures("final")
    lines = ["| | first picture | after introspection |", "|---|---|---|", f"| {base} | {first[0]} | {final[0]} |"]
    lines += [f"| {n} | {a} | {b} |" for n, a, b in zip(names, first[1:], final[1:], strict=True)]
    mean = [across([r["overall"][s] for r in reports]) for s in ("first", "final")]
    several = names[0] if len(runs) == 1 else f"mean of {len(runs)}"
    if len(runs) > 1:
        lines.append(f"| **{several}** | **{mean[0]}** | **{mean[1]}** |")
    lines += [
        "",
        "| category | "
        + " | ".join(f"{name} {title}" for name in (base, several) for _, title in OF_CATEGORIES)
        + " |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in report["categories"]:
        cells = [own(report, ("categories", name, s)) for s, _ in OF_CATEGORIES]
        cells += [across([r["categories"][name].get(s) for r in reports]) for s, _ in OF_CATEGORIES]
        lines.append(f"| {name.replace('_', ' ')} | {' | '.join(cells)} |")
    lines += ["", f"| | {base} | {several} |", "|---|---|---|"]
    rates = [(key, title) for key, title in RATES if all(key in r for r in (report, *reports))]
    lines += [f"| {title} | {own(report, (key,))} | {across([r[key] for r in reports])} |" for key, title in rates]
    lines += [
        "",
        "| paired difference | first picture | after introspection | introspection's gain |",
        "|---|---|---|---|",
    ]
    for n, r, result in zip(names, reports, results, strict=True):
        cells = [difference(functools.partial(paired, outcomes, result), stage) for stage in (0, 1)]
        lines.append(f"| {n} − {base} | {' | '.join(cells)} | {number(r['gain'], r['stderr']['gain'], '+')} |")
    if len(runs) > 1:
        cells = [difference(functools.partial(pooled, outcomes, results), stage) for stage in (0, 1)]
        gains = across([r["gain"] for r in reports], "+")
        lines.append(f"| mean of {len(runs)} − {base}, error over prompts | {' | '.join(cells)} | |")
        cells = [across([paired(outcomes, result, stage)[0] for result in results], "+") for stage in (0, 1)]
        lines.append(f"| mean of {len(runs)} − {base}, error over runs | {' | '.join(cells)} | {gains} |")
    lines.append(f"| {base} | | | {number(report['gain'], report['stderr']['gain'], '+')} |")
    return "\n".join(lines)

"""Evaluations by hand."""

import json

from janus_jax.evaluate import report
from janus_jax.results.scores import rates


def evaluation(path, outcomes):
    """Writes an evaluation of {(prompt, sample): [right of each picture]}; what is right is said to be."""
    prompts = [prompt for prompt, _ in outcomes]
    right = list(outcomes.values())
    finals = [r.index(True) if True in r else len(r) - 1 for r in right]
    figures = rates(prompts, ["colors"] * len(right), right, right, finals)
    path.write_text(json.dumps(report(figures, checkpoint=str(path.with_suffix("")))))
    lines = [
        json.dumps({"prompt": p, "sample": s, "right": r, "verdicts": r, "final": f})
        for ((p, s), r), f in zip(outcomes.items(), finals, strict=True)
    ]
    path.with_suffix(".trajectories.jsonl").write_text("\n".join(lines))
    return path

"""Scores a checkpoint on held-out prompts of the embedded world:

    python -m janus_jax.evaluate --checkpoint shapes-rl --suite shapes --rounds 3 --samples 4 --out eval.json

Accuracy before and after introspection, per category, with standard errors clustered by prompt; repair and spoil rate;
agreement of the model's verdicts with the verifier. The per-trajectory outcomes go to OUT with the suffix
.trajectories.jsonl, so that evaluations can be compared pairwise (janus_jax.compare).
"""

import argparse
import json
import math
import time
from pathlib import Path

from tqdm import tqdm

from janus_jax import cli
from janus_jax.checkpoints import loading
from janus_jax.errors import UserError
from janus_jax.results import scores
from janus_jax.rewards import shapes
from janus_jax.rewards.judge import MATCH
from janus_jax.sampling import flags
from janus_jax.sampling.introspect import introspect
from janus_jax.sequences.request import Request
from janus_jax.shapes import text


def evaluate(model, params, processor, prompts, samples, rounds, sampling, seed, batch, progress=None):
    """Draws and scores. Returns (figures, outcomes): see scores.rates; outcomes are JSON-able, one per trajectory."""
    trajectories = introspect(
        model, params, processor, prompts, samples, rounds, sampling, seed, batch=batch, progress=progress
    )
    shots = [(Request(t.prompt), shot.image) for t in trajectories for shot in t.rounds]
    judged = iter(shapes.judge(*map(list, zip(*shots, strict=True)))[MATCH] >= 0.5)
    right = [[bool(next(judged)) for _ in t.rounds] for t in trajectories]
    categories = [text.parse(t.prompt).category for t in trajectories]
    verdicts = [[shot.verdict for shot in t.rounds] for t in trajectories]
    finals = [t.final for t in trajectories]
    figures = scores.rates([t.prompt for t in trajectories], categories, right, verdicts, finals)
    outcomes = [
        {
            "prompt": t.prompt,
            "sample": t.sample,
            "right": r,
            "verdicts": v,
            "p_yes": [round(shot.p_yes, 6) for shot in t.rounds],
            "final": f,
        }
        for t, r, v, f in zip(trajectories, right, verdicts, finals, strict=True)
    ]
    return figures, outcomes


def report(figures, **facts) -> dict:
    """The JSON object that the command writes; NaN becomes None."""

    def number(value):
        return None if math.isnan(value) else round(value, 5)

    names = {
        "repair_rate": "repair",
        "spoil_rate": "spoil",
        "judge_agreement": "agreement",
        "judge_agreement_balanced": "agreement_balanced",
        "gain": "gain",
        "rounds_used": "rounds",
    }
    overall = {name: number(figures[name][0]) for name in ("first", "final")}
    errors = {name: number(figures[name][1]) for name in ("first", "final")}
    return {
        **facts,
        "overall": overall,
        "categories": {
            name: {stage: number(value[0]) for stage, value in row.items()}
            for name, row in figures["categories"].items()
        },
        **{name: number(figures[key][0]) for name, key in names.items()},
        "stderr": {
            **errors,
            **{name: number(figures[key][1]) for name, key in names.items()},
            "categories": {
                name: {stage: number(value[1]) for stage, value in row.items()}
                for name, row in figures["categories"].items()
            },
        },
    }


def main(argv):
    parser = argparse.ArgumentParser(
        prog="python -m janus_jax.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, help="a folder, or shapes-sft, shapes-rl")
    parser.add_argument("--suite", choices=("shapes",), default="shapes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--prompts-per-category", type=int, default=100)
    parser.add_argument("--out", required=True, type=Path)
    flags.add_drawing(parser)
    parser.set_defaults(batch=200, max_reason_tokens=24)
    args = parser.parse_args(argv)
    cli.at_least(1, samples=args.samples, rounds=args.rounds, prompts_per_category=args.prompts_per_category)
    sampling = flags.drawing(args)
    try:
        prompts = text.held_out_prompts(args.prompts_per_category)
    except ValueError as error:
        raise UserError(str(error)) from error
    cli.writable(args.out)
    model, params, processor = loading.load(args.checkpoint)
    began = time.time()
    with tqdm(total=len(prompts) * args.samples, unit="picture", desc="evaluating") as bar:
        figures, outcomes = evaluate(
            model, params, processor, prompts, args.samples, args.rounds, sampling, args.seed, args.batch, bar.update
        )
    result = report(
        figures,
        suite=args.suite,
        checkpoint=str(args.checkpoint),
        rounds=args.rounds,
        samples=args.samples,
        n=len(outcomes),
        seconds=round(time.time() - began, 1),
        seed=args.seed,
        cfg=sampling.cfg_weight,
        temperature=sampling.temperature,
    )
    # the report last: where it is, all is there
    lines = "".join(json.dumps(outcome) + "\n" for outcome in outcomes)
    cli.write(args.out.with_suffix(".trajectories.jsonl"), lines)
    cli.write(args.out, json.dumps(result, indent=1) + "\n")
    overall, errors = result["overall"], result["stderr"]
    print(
        f"first {overall['first']:.3f} ± {errors['first']:.3f}   "
        f"after introspection {overall['final']:.3f} ± {errors['final']:.3f}   "
        f"repair {result['repair_rate']}   spoil {result['spoil_rate']}   "
        f"agreement {result['judge_agreement']:.3f} (balanced {result['judge_agreement_balanced']})"
    )


if __name__ == "__main__":
    cli.run(main)

"""Scores a checkpoint on held-out prompts of the embedded world:

    python -m janus_jax.evaluate --checkpoint shapes-rl --suite shapes --rounds 3 --samples 4 --out eval.json

Accuracy before and after introspection, per category, with standard errors clustered by prompt; repair and spoil rate;
agreement of the model's verdicts with the verifier. The per-trajectory outcomes go to OUT with the suffix
.trajectories.jsonl as they come: a command that was stopped goes on there, and evaluations can be compared pairwise
(janus_jax.compare).
"""

import argparse
import dataclasses
import json
import math
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from janus_jax import cli
from janus_jax.checkpoints import loading
from janus_jax.errors import UserError
from janus_jax.results import scores
from janus_jax.results.records import Records
from janus_jax.rewards import shapes
from janus_jax.rewards.judge import MATCH
from janus_jax.sampling import flags
from janus_jax.sampling.introspect import rollouts
from janus_jax.sampling.rollout import Rollout
from janus_jax.sequences.request import Request
from janus_jax.shapes import text


def outcomes_of(rollout: Rollout) -> list[dict]:
    """JSON-able outcomes of trajectories, one each, with what the verifier says of every picture."""
    requests, pictures = map(list, zip(*rollout.pictures, strict=True))
    right = np.zeros(rollout.verdict.shape, bool)
    right[rollout.live] = shapes.judge(requests, pictures)[MATCH] >= 0.5
    return [
        {
            "prompt": request.prompt,
            "sample": int(rollout.sample[i]),
            "right": right[i, :count].tolist(),
            "verdicts": rollout.verdict[i, :count].tolist(),
            "p_yes": [round(float(p), 6) for p in rollout.p_yes[i, :count]],
            "final": int(rollout.final[i]),
        }
        for i, (request, count) in enumerate(zip(rollout.requests, rollout.rounds, strict=True))
    ]


def figures_of(outcomes) -> dict:
    """The figures of an evaluation, see scores.rates."""
    prompts = [one["prompt"] for one in outcomes]
    categories = [text.parse(prompt).category for prompt in prompts]
    columns = ([one[name] for one in outcomes] for name in ("right", "verdicts", "final"))
    return scores.rates(prompts, categories, *columns)


def evaluate(model, params, processor, work, rounds, sampling, seed, batch):
    """Draws and scores some work, (Request, sample)s: yields the outcomes of one chunk after another."""
    for part in rollouts(model, params, processor, work, rounds, sampling, seed, batch=batch):
        yield outcomes_of(part)


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
    sampling = flags.drawing(args)
    try:
        prompts = text.held_out_prompts(args.prompts_per_category)
    except ValueError as error:
        raise UserError(str(error)) from error
    cli.writable(args.out)
    path = args.out.with_suffix(".trajectories.jsonl")
    settings = {"checkpoint": str(args.checkpoint), "rounds": args.rounds, "seed": args.seed}
    records = Records(path, settings | dataclasses.asdict(sampling))
    there = {(one["prompt"], one["sample"]) for one in records.found}
    work = [(Request(prompt), sample) for prompt in prompts for sample in range(args.samples)]
    missing = [(request, sample) for request, sample in work if (request.prompt, sample) not in there]
    model, params, processor = loading.load(args.checkpoint)
    began = time.time()
    with tqdm(total=len(work), initial=len(work) - len(missing), unit="picture", desc="evaluating") as bar:
        if missing:
            for outcomes in evaluate(model, params, processor, missing, args.rounds, sampling, args.seed, args.batch):
                records.append(outcomes)
                bar.update(len(outcomes))
    wanted = {(request.prompt, sample): n for n, (request, sample) in enumerate(work)}
    outcomes = [one for one in records.found if (one["prompt"], one["sample"]) in wanted]
    outcomes.sort(key=lambda one: wanted[one["prompt"], one["sample"]])
    result = report(
        figures_of(outcomes),
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
    cli.write(args.out, json.dumps(result, indent=1) + "\n")  # last: where it is, all is there
    overall, errors = result["overall"], result["stderr"]
    print(
        f"first {overall['first']:.3f} ± {errors['first']:.3f}   "
        f"after introspection {overall['final']:.3f} ± {errors['final']:.3f}   "
        f"repair {result['repair_rate']}   spoil {result['spoil_rate']}   "
        f"agreement {result['judge_agreement']:.3f} (balanced {result['judge_agreement_balanced']})"
    )


if __name__ == "__main__":
    cli.run(main)

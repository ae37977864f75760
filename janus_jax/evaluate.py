"""Scores a checkpoint on held-out prompts of the embedded world:

    python -m janus_jax.evaluate --checkpoint shapes-rl --suite shapes --rounds 3 --samples 4 --out eval.json

Accuracy before and after introspection, per category, with standard errors clustered by prompt; repair and spoil rate;
agreement of the model's verdicts with the verifier. --suite shapes_edit asks for held-out edits, of which a picture is
right where all is done and nothing else; "edits" are the chosen pictures' scores of each kind, "edits_bound" those of
the true pictures through the model's picture tokenizer. The per-trajectory outcomes go to OUT with the suffix
.trajectories.jsonl as they come: a command that was stopped goes on there, and evaluations can be compared pairwise
(janus_jax.compare).

--suite shapes_questions asks held-out questions about pictures instead ("how many circles are there?"), so many of each
kind as of prompts per category. The answers go to OUT with the suffix .answers.jsonl.
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
from janus_jax.results import answers, scores, suites
from janus_jax.results.records import Records
from janus_jax.rewards import shapes
from janus_jax.rewards.judge import MATCH
from janus_jax.sampling import flags
from janus_jax.sampling.introspect import rollouts
from janus_jax.sampling.rollout import Rollout


def outcomes_of(rollout: Rollout) -> list[dict]:
    """JSON-able outcomes of trajectories, one each, with what the verifier says of every picture."""
    requests, pictures = map(list, zip(*rollout.pictures, strict=True))
    judged = shapes.judge(requests, pictures)

    def by_round(values):
        rows = np.zeros(rollout.verdict.shape, values.dtype)
        rows[rollout.live] = values
        return rows

    of_edits = MATCH not in judged
    scored = {name: by_round(judged[name]) for name in judged} if of_edits else {}
    good = np.min([judged[name] for name in judged], axis=0) == 1 if of_edits else judged[MATCH] >= 0.5
    right = by_round(good)
    return [
        {
            "prompt": request.prompt,
            "sample": int(rollout.sample[i]),
            "right": right[i, :count].tolist(),
            "verdicts": rollout.verdict[i, :count].tolist(),
            "p_yes": [round(float(p), 6) for p in rollout.p_yes[i, :count]],
            "final": int(rollout.final[i]),
            **{name: [round(float(value), 6) for value in rows[i, :count]] for name, rows in scored.items()},
        }
        for i, (request, count) in enumerate(zip(rollout.requests, rollout.rounds, strict=True))
    ]


def figures_of(outcomes, categories) -> dict:
    """The figures of an evaluation, see scores.rates. categories: of each prompt its own."""
    prompts = [one["prompt"] for one in outcomes]
    columns = ([one[name] for one in outcomes] for name in ("right", "verdicts", "final"))
    return scores.rates(prompts, [categories[prompt] for prompt in prompts], *columns)


def evaluate(model, params, processor, work, rounds, sampling, seed, batch):
    """Draws and scores some work, (Request, sample)s: yields the outcomes of one chunk after another."""
    for part in rollouts(model, params, processor, work, rounds, sampling, seed, batch=batch):
        yield outcomes_of(part)


def number(value) -> float | None:
    """As the file has it; NaN becomes None."""
    return None if math.isnan(value) else round(value, 5)


def add_edits(result, figures, bound) -> None:
    """Adds what there is to say of edits, {kind: {score: (mean, standard error)}}, to a report."""

    def part(of, which):
        return {kind: {name: number(pair[which]) for name, pair in row.items()} for kind, row in of.items()}

    result |= {"edits": part(figures, 0), "edits_bound": part(bound, 0)}
    result["stderr"]["edits"] = part(figures, 1)


def report(figures, **facts) -> dict:
    """The JSON object that the command writes."""
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


def arguments(argv):
    """The flags."""
    per = ", ".join(f"{count} of {name}" for name, count in suites.PER_CATEGORY.items())
    parser = argparse.ArgumentParser(
        prog="python -m janus_jax.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, help="a folder, or shapes-sft, shapes-rl")
    parser.add_argument("--suite", choices=tuple(suites.PER_CATEGORY), default="shapes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--prompts-per-category", type=int, help=f"default: {per}")
    parser.add_argument("--out", required=True, type=Path)
    flags.add_drawing(parser)
    parser.set_defaults(batch=200, max_reason_tokens=24)
    args = parser.parse_args(argv)
    if args.prompts_per_category is None:  # else a 0 is refused
        args.prompts_per_category = suites.PER_CATEGORY[args.suite]
    return args


def _spent(path) -> float:
    """The seconds that an evaluation took so far, by its file."""
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def main(argv):
    args = arguments(argv)
    sampling = flags.drawing(args)
    if args.suite == "shapes_questions":
        answers.evaluate(args.checkpoint, args.prompts_per_category, args.out, args.batch, args.seed)
        return
    try:
        asked = suites.suite(args.suite, args.prompts_per_category)
    except ValueError as error:
        raise UserError(str(error)) from error
    cli.writable(args.out)
    path = args.out.with_suffix(".trajectories.jsonl")
    settings = {"checkpoint": str(args.checkpoint), "rounds": args.rounds, "seed": args.seed}
    settings |= {} if args.suite == "shapes" else {"suite": args.suite}
    records = Records(path, settings | dataclasses.asdict(sampling))
    there = {(one["prompt"], one["sample"]) for one in records.found}
    work = [(request, sample) for request in asked.requests for sample in range(args.samples)]
    missing = [(request, sample) for request, sample in work if (request.prompt, sample) not in there]
    model, params, processor = loading.load(args.checkpoint)
    began = time.time() - _spent(args.out)
    with (
        cli.keeping(),
        tqdm(total=len(work), initial=len(work) - len(missing), unit="picture", desc="evaluating") as bar,
    ):
        if missing:
            for outcomes in evaluate(model, params, processor, missing, args.rounds, sampling, args.seed, args.batch):
                records.append(outcomes)
                bar.update(len(outcomes))
    wanted = {(request.prompt, sample): n for n, (request, sample) in enumerate(work)}
    outcomes = [one for one in records.found if (one["prompt"], one["sample"]) in wanted]
    outcomes.sort(key=lambda one: wanted[one["prompt"], one["sample"]])
    result = report(
        figures_of(outcomes, asked.categories),
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
    if asked.targets is not None:
        bound = suites.edit_bound(model, params, asked)
        add_edits(result, suites.edit_figures(outcomes, asked.categories), bound)
    cli.write(args.out, json.dumps(result, indent=1) + "\n")  # last: where it is, all is there
    overall, errors = result["overall"], result["stderr"]
    for kind, row in result.get("edits", {}).items():
        print(f"{kind}: " + "   ".join(f"{name} {value:.3f}" for name, value in row.items()))
    print(
        f"first {overall['first']:.3f} ± {errors['first']:.3f}   "
        f"after introspection {overall['final']:.3f} ± {errors['final']:.3f}   "
        f"repair {result['repair_rate']}   spoil {result['spoil_rate']}   "
        f"agreement {result['judge_agreement']:.3f} (balanced {result['judge_agreement_balanced']})"
    )


if __name__ == "__main__":
    cli.run(main)

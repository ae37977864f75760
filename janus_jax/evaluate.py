"""Scores a checkpoint on held-out prompts of the embedded world:

    python -m janus_jax.evaluate --checkpoint shapes-rl --suite shapes --rounds 3 --samples 4 --out eval.json

Accuracy before and after introspection, per category, with standard errors clustered by prompt and by the held-out
combination that prompts share; repair and spoil rate; agreement of the model's verdicts with the verifier; the share of
verdicts whose words contradict them; agreement of the verifier with a second one. Choices are made on --split
validation (or train), and test is left alone until they are made. The prompts, and what is held out of them, are those
of the world that the checkpoint was trained on.

--again fresh and --again best draw as many single pictures in place of drawing again, and keep the first Yes, or the
highest P(yes): what introspection has to beat.

--suite shapes_redraw says what looking and words are worth: given a wrong first picture and a No, how often the next
one is right after the model's own reason, after another prompt's, and without one, against a fresh sample; and how many
of the first picture's objects it keeps. --suite shapes_edit asks for held-out edits, of which a picture is
right where all is done and nothing else; "edits" are the chosen pictures' scores of each kind, "edits_bound" those of
the true pictures through the model's picture tokenizer. The per-trajectory outcomes go to OUT with the suffix
.trajectories.jsonl as they come: a command that was stopped goes on there, and evaluations can be compared pairwise
(janus_jax.compare). The pictures go to a folder, OUT with the suffix .pictures, whose index.html shows them with what
the model and what the verifier says of each; --no-pictures keeps none.

--suite shapes_questions asks held-out questions about pictures instead ("how many circles are there?"), so many of each
kind as of prompts per category. The answers go to OUT with the suffix .answers.jsonl.
"""

import json
import math
import time
from pathlib import Path

import numpy as np

from janus_jax import cli
from janus_jax.checkpoints import loading
from janus_jax.errors import UserError
from janus_jax.results import answers, evaluated, fresh, redrawing, scores, suites
from janus_jax.results.records import Records
from janus_jax.rewards import shapes
from janus_jax.rewards.judge import FOLLOWING, MATCH, PRESERVING, WHOLE
from janus_jax.sampling import flags
from janus_jax.sampling.introspect import rollouts
from janus_jax.sampling.rollout import Rollout
from janus_jax.shapes import moments, reasons, text, verify
from janus_jax.shapes.world import SHIPPED, SPLITS, World


def outcomes_of(rollout: Rollout, processor=None, world: World = SHIPPED) -> list[dict]:
    """JSON-able outcomes of trajectories, one each, with what the verifier says of every picture. With a processor also
    the reasons that the model gave, and of prompts whether they contradict the verdict, and what the second verifier
    says."""
    requests, pictures = map(list, zip(*rollout.pictures, strict=True))
    judged = shapes.judge(requests, pictures, world)

    def by_round(values):
        rows = np.zeros(rollout.verdict.shape, values.dtype)
        rows[rollout.live] = values
        return rows

    of_edits = WHOLE in judged
    scored = {name: by_round(judged[name]) for name in (FOLLOWING, PRESERVING)} if of_edits else {}
    right = by_round(judged[WHOLE if of_edits else MATCH] >= 0.5)
    more = _looked_into(rollout, processor, of_edits, world) if processor else [{}] * len(rollout)
    return [
        {
            "prompt": request.prompt,
            "sample": int(rollout.sample[i]),
            "right": right[i, :count].tolist(),
            "verdicts": rollout.verdict[i, :count].tolist(),
            "p_yes": [round(float(p), 6) for p in rollout.p_yes[i, :count]],
            "final": int(rollout.final[i]),
            **{name: [round(float(value), 6) for value in rows[i, :count]] for name, rows in scored.items()},
            **more[i],
        }
        for i, (request, count) in enumerate(zip(rollout.requests, rollout.rounds, strict=True))
    ]


def _looked_into(rollout, processor, of_edits, world):
    """Of each trajectory, by round: the reasons; of prompts, whether they contradict the verdict, and the second
    verifier's opinion."""
    found = []
    for i, (request, count) in enumerate(zip(rollout.requests, rollout.rounds, strict=True)):
        said = [processor.decode(rollout.reason_ids[i, r, : rollout.words[i, r]]) for r in range(count)]
        found.append({"reasons": said})
        if not of_edits:
            ask = text.parse(request.prompt, world)
            found[i]["contradicts"] = [reasons.contradicts(ask, words) for words in said]
            found[i]["second"] = [verify.matches(ask, moments.read(rollout.images[i, r], world)) for r in range(count)]
    return found


def figures_of(outcomes, categories, combinations=None) -> dict:
    """The figures of an evaluation, see scores.rates, and where the outcomes say so "contradictions" (the share of
    verdicts that their words contradict) and "verifiers" (of pictures of which both verifiers say the same).
    categories: of each prompt its own; combinations: likewise, what the errors are clustered by in place of prompts."""
    prompts = [one["prompt"] for one in outcomes]
    clusters = [combinations[prompt] for prompt in prompts] if combinations else prompts
    columns = ([one[name] for one in outcomes] for name in ("right", "verdicts", "final"))
    figures = scores.rates(clusters, [categories[prompt] for prompt in prompts], *columns)
    if all("second" in one for one in outcomes):
        owners = [owner for owner, one in zip(clusters, outcomes, strict=True) for _ in one["right"]]
        both = [a == b for one in outcomes for a, b in zip(one["right"], one["second"], strict=True)]
        words = [value for one in outcomes for value in one["contradicts"]]
        figures["verifiers"] = scores.clustered(both, owners)
        figures["contradictions"] = scores.clustered(words, owners)
    return figures


def number(value) -> float | None:
    """As the file has it; NaN becomes None."""
    return None if math.isnan(value) else round(value, 5)


def add_edits(result, figures, bound) -> None:
    """Adds what there is to say of edits, {kind: {score: (mean, standard error)}}, to a report."""

    def part(of, which):
        return {kind: {name: number(pair[which]) for name, pair in row.items()} for kind, row in of.items()}

    result |= {"edits": part(figures, 0), "edits_bound": part(bound, 0)}
    result["stderr"]["edits"] = part(figures, 1)


RATES = {
    "repair_rate": "repair",
    "spoil_rate": "spoil",
    "judge_agreement": "agreement",
    "judge_agreement_balanced": "agreement_balanced",
    "gain": "gain",
    "rounds_used": "rounds",
    "contradictions": "contradictions",
    "verifier_agreement": "verifiers",
}
ERRORS = ("stderr", "stderr_by_combination")  # clustered by prompt, and by what prompts have in common


def report(figures, by_combination=None, **facts) -> dict:
    """The JSON object that the command writes. by_combination: the same figures with their errors clustered by
    combination."""
    result = {**facts, "overall": {name: number(figures[name][0]) for name in ("first", "final")}}
    result |= {name: value for name, value in _column(figures, 0).items() if name not in ("first", "final")}
    result["stderr"] = _column(figures, 1)
    if by_combination:
        result["stderr_by_combination"] = _column(by_combination, 1)
    return result


def _column(figures, which):
    """The means (0) or the standard errors (1) of figures, under the report's names."""
    names = {"first": "first", "final": "final"} | {name: key for name, key in RATES.items() if key in figures}
    categories = {
        name: {stage: number(value[which]) for stage, value in row.items()}
        for name, row in figures["categories"].items()
    }
    return {"categories": categories, **{name: number(figures[key][which]) for name, key in names.items()}}


def arguments(argv):
    """The flags."""
    per = ", ".join(f"{count} of {name}" for name, count in suites.PER_CATEGORY.items())
    parser = cli.Parser("evaluate", __doc__)
    cli.add_model_flags(parser)
    parser.add_argument("--suite", choices=tuple(suites.PER_CATEGORY), default="shapes", help="what is asked")
    parser.add_argument("--split", choices=SPLITS, default="test", help="which prompts of the world are asked")
    parser.add_argument("--rounds", type=int, default=3, help="pictures per trajectory at most")
    parser.add_argument(
        "--again",
        choices=fresh.AGAIN,
        default="redraw",
        help="after a No: redraw it, or draw a fresh sample; best: so many fresh ones, the highest P(yes) counts",
    )
    parser.add_argument("--samples", type=int, default=4, help="trajectories of each prompt")
    parser.add_argument("--prompts-per-category", type=int, help=f"how many prompts of each (default: {per})")
    parser.add_argument("--out", required=True, type=Path, help="the report to write, a .json file")
    parser.add_argument("--no-pictures", action="store_true", help="keep no pictures, and write no page of them")
    flags.add_drawing(parser)
    parser.set_defaults(batch=200, max_reason_tokens=24)
    args = parser.parse_args(argv)
    if args.prompts_per_category is None:  # else a 0 is refused
        args.prompts_per_category = suites.PER_CATEGORY[args.suite]
    if args.split != "test" and args.suite == "shapes_questions":
        raise UserError("shapes_questions has one set, of all that training does not see: leave --split out")
    if args.again != "redraw" and args.suite != "shapes":
        raise UserError(f"--again {args.again} is for --suite shapes: leave it out")
    return args


def _spent(path) -> float:
    """The seconds that an evaluation took so far, by its file."""
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def main(argv):
    args = arguments(argv)
    sampling, world = flags.drawing(args), loading.world_of(args.checkpoint)
    settings, where = settings_of(args, sampling), (args.out, args.batch, args.seed)
    if args.suite == "shapes_questions":
        answers.evaluate(flags.loaded(args), settings, args.prompts_per_category, world, *where)
        return
    try:
        asked = suites.suite(args.suite, args.prompts_per_category, world, args.split)
    except ValueError as error:
        raise UserError(str(error)) from error
    cli.writable(args.out)
    if args.suite == "shapes_redraw":
        redrawing.evaluate(flags.loaded(args), settings, asked, args.samples, sampling, *where)
        return
    trajectories = args.out.with_suffix(".trajectories.jsonl")
    records = Records(trajectories if args.again == "redraw" else args.out.with_suffix(".singles.jsonl"), settings)
    with flags.loaded(args) as model:
        began = time.time() - _spent(args.out)
        outcomes = _drawn(args, asked, sampling, records, model)
        if args.again != "redraw":
            outcomes = fresh.trajectories(outcomes, args.samples, args.again)
            cli.write(trajectories, "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in outcomes))
        bound = None if asked.targets is None else suites.edit_bound(*model[:2], asked)
    result = report(
        figures_of(outcomes, asked.categories),
        figures_of(outcomes, asked.categories, asked.combinations) if asked.combinations else None,
        suite=args.suite,
        split=args.split,
        checkpoint=str(args.checkpoint),
        rounds=args.rounds,
        samples=args.samples,
        n=len(outcomes),
        seconds=round(time.time() - began, 1),
        seed=args.seed,
        cfg=sampling.cfg_weight,
        temperature=sampling.temperature,
        **({} if args.again == "redraw" else {"again": args.again}),
    )
    if bound is not None:
        add_edits(result, suites.edit_figures(outcomes, asked.categories), bound)
    told = {name: value for name, value in result.items() if name not in ("categories", *ERRORS)}
    pictures = args.out.with_suffix(".pictures")
    page = evaluated.write_page(pictures, f"{args.checkpoint} on {args.suite}", told, outcomes)
    if asked.combinations:
        result["combinations"] = asked.combinations
    cli.write(args.out, json.dumps(result, indent=1) + "\n")  # last: where it is, all is there
    for line in (*([page] if page else []), *lines(result)):
        print(line)


def settings_of(args, sampling) -> dict:
    """What the outcomes depend on, beside what is asked."""
    settings = {"checkpoint": str(args.checkpoint), "seed": args.seed}
    settings |= {} if args.suite == "shapes" else {"suite": args.suite}
    settings |= {} if args.split == "test" else {"split": args.split}
    settings |= {} if args.dtype == "float32" else {"dtype": args.dtype}
    if args.suite == "shapes_questions":  # answers are the likeliest ones
        return settings | {"per_kind": args.prompts_per_category}
    rounds = {} if args.suite == "shapes_redraw" else {"rounds": args.rounds if args.again == "redraw" else 1}
    return settings | rounds | sampling.determining


def _drawn(args, asked, sampling, records, model) -> list[dict]:
    """The outcomes of all that is asked, in order; those that are not among the records yet are drawn."""
    pictures, numbers = args.out.with_suffix(".pictures"), evaluated.numbers(list(asked.categories), records.found)
    singly = args.again != "redraw"
    rounds, samples = (1, args.samples * args.rounds) if singly else (args.rounds, args.samples)
    work = [(request, sample) for request in asked.requests for sample in range(samples)]
    there = {(one["prompt"], one["sample"]) for one in records.found}
    missing = [(request, sample) for request, sample in work if (request.prompt, sample) not in there]
    with cli.keeping(), cli.Bar(len(work), len(work) - len(missing), "evaluating") as bar:
        if missing:
            settings = {"batch": args.batch, "on_codes": bar.codes}
            for part in rollouts(*model, missing, rounds, sampling, args.seed, **settings):
                outcomes = outcomes_of(part, model[-1], asked.world)
                if not (args.no_pictures or singly):
                    evaluated.keep(pictures, numbers, part.trajectories(model[-1]), outcomes)
                records.append(outcomes)
                bar.update(len(outcomes))
    wanted = {(request.prompt, sample): n for n, (request, sample) in enumerate(work)}
    found = [one for one in records.found if (one["prompt"], one["sample"]) in wanted]
    return sorted(found, key=lambda one: wanted[one["prompt"], one["sample"]])


def lines(result):
    """A report in a few lines."""
    for kind, row in result.get("edits", {}).items():
        yield f"{kind}: " + "   ".join(f"{name} {value:.3f}" for name, value in row.items())

    def figure(name, mean):
        by = [result[key][name] for key in ERRORS if key in result]
        errors = [f"± {error:.3f}" for error in by if error is not None]
        return f"{name} {mean:.3f} " + " and ".join(errors)

    if "stderr_by_combination" in result:
        yield "errors are clustered by prompt, and by the combinations that prompts share"
    yield "   ".join(figure(name, mean) for name, mean in result["overall"].items())
    rates = {name.replace("_", " "): result[name] for name in RATES if result.get(name) is not None}
    yield "   ".join(f"{name} {value:.3f}" for name, value in rates.items())


if __name__ == "__main__":
    cli.run(main)

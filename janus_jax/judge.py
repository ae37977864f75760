"""Asks a model whether pictures match prompts:

    python -m janus_jax.judge --checkpoint shapes-rl --image a.png --prompt "two red circles"
    python -m janus_jax.judge --checkpoint shapes-rl --pairs pairs.jsonl > verdicts.jsonl
    python -m janus_jax.judge --checkpoint shapes-rl --pairs pairs.jsonl --label right --out out \\
        --fit-threshold dev.jsonl

A line of pairs.jsonl is {"image": FILE, "prompt": TEXT}, files relative to pairs.jsonl, and of an edit {"source": FILE,
"image": FILE, "text": INSTRUCTION}. Gives one JSON object per picture: {"image", "prompt", "p_yes", "verdict",
"reason"}, and "source" of an edit. They are printed or, with --out, written to OUT/judged.jsonl as they come: the same
command goes on with what is missing.

--label names the key of each line that says whether the picture is right (true or false, yes or no, 0 or 1, or a score,
right from --label-threshold on). How the model agrees with it comes last: accuracy, balanced accuracy, confusion,
reliability and calibration error, as a line, or in OUT/agreement.json and OUT/reliability.png. --fit-threshold chooses
the threshold on P(yes) on other labelled pairs, for the highest balanced accuracy there.

From Python: janus_jax.judge(model, params, processor, images, prompts), and janus_jax.results.agreement.
"""

import contextlib
import dataclasses
import json
import os
from pathlib import Path

import numpy as np

from janus_jax import cli
from janus_jax.data import records
from janus_jax.data.pairs import RIGHT_FROM, Pair, read_pairs
from janus_jax.errors import UserError
from janus_jax.results import agreement, agreement_report
from janus_jax.results.records import Records
from janus_jax.sampling import flags
from janus_jax.sampling.answer import GREEDY_VERDICT, VERDICT_ALONE, judge
from janus_jax.sequences import images, tokens


def arguments(argv):
    """The flags."""
    parser = cli.Parser("judge", __doc__)
    cli.add_model_flags(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--image", metavar="FILE", action="append", help="a picture; several with as many --prompt")
    source.add_argument("--pairs", metavar="FILE.jsonl", help="pictures with their prompts")
    parser.add_argument(
        "--prompt", action="append", default=[], help="what a picture should show; one is asked of all, several of one"
    )
    parser.add_argument(
        "--label", metavar="COLUMN", help="the key of the lines that says whether a picture is right (default: none)"
    )
    parser.add_argument("--label-threshold", type=float, default=RIGHT_FROM, help="a score from this on is right")
    parser.add_argument(
        "--fit-threshold", metavar="DEV.jsonl", help="labelled pairs to choose the threshold on (default: none)"
    )
    parser.add_argument(
        "--out", type=Path, help="a folder; what it holds already is not judged again (default: lines are printed)"
    )
    parser.add_argument("--batch", type=int, default=8, help="pictures at a time")
    records.add_flags(parser)
    flags.add_speaking(parser, GREEDY_VERDICT.max_reason_tokens)
    args = parser.parse_args(argv)
    if bool(args.image) != bool(args.prompt):
        raise UserError("--prompt goes with --image, and --image with --prompt: give both, or --pairs alone")
    if args.batch < 1:
        raise UserError("--batch must be at least 1")
    if args.image and (args.label or args.out):
        raise UserError(f"--{'label' if args.label else 'out'} goes with --pairs, a file of pictures")
    if args.fit_threshold and not args.label:
        raise UserError("--fit-threshold needs --label, the key of the labels in both files")
    return args


def read(args) -> tuple[list[Pair], list[Pair]]:
    """The pairs to judge, and those to choose a threshold on. Raises UserError where some are in both."""
    if args.image:
        most = max(len(args.image), len(args.prompt))
        pictures, prompts = (each * most if len(each) == 1 else each for each in (args.image, args.prompt))
        if len(pictures) != len(prompts):
            raise UserError(f"{len(pictures)} --image do not go with {len(prompts)} --prompt: give as many, or one")
        for picture in pictures:
            images.read(picture)
        return [Pair(Path(picture), prompt) for picture, prompt in zip(pictures, prompts, strict=True)], []
    files = [args.pairs] + ([args.fit_threshold] if args.fit_threshold else [])
    if len(files) == 2 and os.path.exists(files[0]) and os.path.exists(files[1]) and os.path.samefile(*files):
        raise UserError("--fit-threshold is the file of --pairs: choose the threshold on other pairs")
    pairs, *dev = (
        read_pairs(
            file,
            args.label,
            records.tally_of(args, file),
            args.allow_outside,
            args.label_threshold,
            both=file == args.fit_threshold,
        )
        for file in files
    )
    dev = dev[0] if dev else []
    if shared := len(set(map(_place, pairs)) & set(map(_place, dev))):
        raise UserError(f"{files[1]} holds {shared} of the pairs of {files[0]}: take them out of one of the two")
    return pairs, dev


def _place(pair):
    """A pair by where its pictures lie."""
    return os.path.realpath(pair.image), pair.prompt, pair.source and os.path.realpath(pair.source)


@dataclasses.dataclass
class Printed:
    """What stands in for Records where there is no folder. shown: whether what is appended is printed."""

    shown: bool
    found: list[dict] = dataclasses.field(default_factory=list)

    def append(self, objects) -> None:
        """Prints objects, a line each."""
        self.found += objects
        for each in objects if self.shown else ():
            print(json.dumps(each, ensure_ascii=False), flush=True)


def kept(args, name: str, path, sampling, shown: bool) -> Records | Printed:
    """Where the lines of a file of pairs go."""
    if not args.out:
        return Printed(shown)
    cli.writable(args.out / name)
    settings = {"checkpoint": str(args.checkpoint), "dtype": args.dtype, "pairs": str(path), "seed": args.seed}
    return Records(args.out / name, settings | sampling.determining)


def key(pair: Pair) -> tuple:
    """What a pair is known by."""
    return str(pair.image), pair.prompt, None if pair.source is None else str(pair.source)


def by_key(lines) -> dict[tuple, float]:
    """P(yes) of each pair that there is a line of."""
    return {(line["image"], line["prompt"], line.get("source")): line["p_yes"] for line in lines}


def line_of(pair: Pair, p_yes: float, reason: str) -> dict:
    """What is written of a picture. The verdict is the reason's first word."""
    asked = {"image": str(pair.image), "prompt": pair.prompt}
    asked |= {} if pair.source is None else {"source": str(pair.source)}
    return asked | {"p_yes": p_yes, "verdict": reason.lstrip().startswith("Yes"), "reason": reason}


def ask(args, jobs) -> None:
    """Judges what is missing. jobs: (pairs, how to speak, where the lines go)."""
    there = [by_key(to.found) for _, _, to in jobs]
    jobs = [
        ([pair for pair in some if key(pair) not in done], how, to)
        for (some, how, to), done in zip(jobs, there, strict=True)
    ]
    total = sum(len(some) for some, _, _ in jobs)
    if not total:
        return
    with (
        flags.loaded(args) as (model, params, processor),
        cli.keeping() if args.out else contextlib.nullcontext(),
        cli.Bar(total, 0, "judging", shown=bool(args.out)) as bar,
    ):
        for prompt, edits in {(pair.prompt, pair.source is not None) for some, _, _ in jobs for pair in some}:
            ids_of = tokens.edit_ids if edits else tokens.prompt_ids
            ids_of(processor.tokenizer, prompt)  # all are refused before any is printed
        for some, how, to in jobs:
            for begin in range(0, len(some), args.batch):
                part = some[begin : begin + args.batch]
                pictures, requests = [images.read(pair.image) for pair in part], [pair.request() for pair in part]
                said = judge(model, params, processor, pictures, requests, how, args.seed, args.batch)
                to.append([line_of(pair, *one) for pair, one in zip(part, said, strict=True)])
                bar.update(len(part))


def main(argv):
    args = arguments(argv)
    sampling = flags.speaking(args)
    pairs, dev = read(args)
    said = kept(args, "judged.jsonl", args.pairs, sampling, shown=True)
    tried = kept(args, "dev.jsonl", args.fit_threshold, VERDICT_ALONE, shown=False) if dev else None
    ask(args, [(pairs, sampling, said)] + ([(dev, VERDICT_ALONE, tried)] if dev else []))
    if args.label:
        report(args, scored(pairs, said), scored(dev, tried) if dev else None, [key(pair)[1:] for pair in pairs])


def scored(pairs, lines) -> tuple[np.ndarray, np.ndarray]:
    """P(yes) f[N] and labels bool[N] of pairs."""
    p_yes = by_key(lines.found)
    return np.array([p_yes[key(pair)] for pair in pairs]), np.array([pair.right for pair in pairs])


def report(args, answers, dev, asked) -> None:
    """Writes or prints how answers agree with their labels. asked: what each was about, its prompt and source."""
    result = {"checkpoint": str(args.checkpoint), "pairs": str(args.pairs), "label": args.label, "n": len(asked)}
    clusters = [json.dumps(one) for one in asked]
    result |= agreement_report.report(*answers, clusters, dev)
    if dev:
        result["fitted"] = {"dev": str(args.fit_threshold), "n_dev": len(dev[0])} | result["fitted"]
    if not args.out:
        print(json.dumps({"agreement": result}, ensure_ascii=False))
        return
    path = args.out / "reliability.png"
    try:
        agreement_report.draw(agreement.reliability(*answers), f"{args.checkpoint}: is a Yes right?").save(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; make room, and start again") from error
    cli.write(args.out / "agreement.json", json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(agreement_report.table(result))


if __name__ == "__main__":
    cli.run(main)

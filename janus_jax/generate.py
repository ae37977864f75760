"""Draws pictures with introspection:

    python -m janus_jax.generate --checkpoint shapes-rl --prompt "three red circles" --out out

Writes OUT/images/*.png, OUT/trajectories.jsonl and OUT/storyboard.png.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from tqdm import tqdm

from janus_jax import cli, loading
from janus_jax.density import Sampling
from janus_jax.errors import UserError
from janus_jax.introspect import introspect
from janus_jax.storyboard import storyboard


def add_sampling_flags(parser) -> None:
    """The flags that say how to draw."""
    parser.add_argument("--cfg", type=float, help="guidance weight, 1 = none (default: the checkpoint's own, else 5)")
    parser.add_argument("--temperature", type=float, help="default: the checkpoint's own, else 1")
    parser.add_argument("--image-top-k", type=int)
    parser.add_argument("--image-top-p", type=float)
    parser.add_argument("--text-top-k", type=int)
    parser.add_argument("--text-top-p", type=float)
    parser.add_argument("--max-reason-tokens", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=64, help="rows at a time; changes the speed, not the pictures")


def sampling_of(args) -> Sampling:
    """The Sampling that the flags describe. Raises UserError for values out of range, also of --batch and --seed."""
    cli.at_least(1, batch=args.batch)
    cli.at_least(0, seed=args.seed)
    named = {"cfg_weight": args.cfg, "temperature": args.temperature}
    try:
        return loading.sampling_of(
            args.checkpoint,
            **{name: value for name, value in named.items() if value is not None},
            image_top_k=args.image_top_k,
            image_top_p=args.image_top_p,
            text_top_k=args.text_top_k,
            text_top_p=args.text_top_p,
            max_reason_tokens=args.max_reason_tokens,
        )
    except ValueError as error:
        raise UserError(str(error)) from error


def writable(out: Path) -> None:
    """Raises UserError where `write` could not write to the folder `out`, or would have to remove pictures that are not
    an earlier run's."""
    cli.writable(out / "storyboard.png")
    if (out / "images").exists() and not (out / "trajectories.jsonl").is_file():
        raise UserError(f"{out} has images of something else: choose another --out")


def write(out: Path, trajectories, seed: int, title: str) -> None:
    """Writes pictures, trajectories.jsonl and storyboard.png into the folder `out`; they appear together."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".generate.", dir=out))
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; choose another --out") from error
    try:
        (scratch / "images").mkdir()
        index = {}
        with open(scratch / "trajectories.jsonl", "w", encoding="utf-8") as file:
            for t in trajectories:
                number = index.setdefault(t.prompt, len(index))
                lines = []
                for turn, shot in enumerate(t.rounds):
                    name = f"images/{number:04d}_{t.sample}_{turn}.png"
                    shot.image.save(scratch / name)
                    lines.append({"image": name, "verdict": shot.verdict, "p_yes": shot.p_yes, "reason": shot.reason})
                record = {"prompt": t.prompt, "sample": t.sample, "seed": seed, "rounds": lines, "final": t.final}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
        # the trajectories that were drawn again first: they are what one wants to see
        storyboard(sorted(trajectories, key=lambda t: -len(t.rounds)), title=title).save(scratch / "storyboard.png")
        shutil.rmtree(out / "images", ignore_errors=True)
        for path in scratch.iterdir():
            path.replace(out / path.name)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; choose another --out") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def read_prompts(args) -> list[str]:
    """The prompts of --prompt or --prompts. Raises UserError where the file is missing or empty."""
    if args.prompt is not None:
        return [args.prompt]
    try:
        lines = Path(args.prompts).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {args.prompts}: give a text file with one prompt per line") from error
    prompts = [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise UserError(f"{args.prompts} holds no prompt: give one per line")
    return prompts


def main(argv):
    parser = argparse.ArgumentParser(
        prog="python -m janus_jax.generate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cli.add_model_flags(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--prompt")
    source.add_argument("--prompts", help="a text file, one prompt per line")
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--context", choices=("codes", "reencode"), default="codes")
    parser.add_argument("--out", required=True, type=Path)
    add_sampling_flags(parser)
    args = parser.parse_args(argv)
    cli.at_least(1, samples=args.samples, rounds=args.rounds)
    sampling, prompts = sampling_of(args), read_prompts(args)
    writable(args.out)
    model, params, processor = loading.load(args.checkpoint, args.dtype)
    with tqdm(total=len(prompts) * args.samples, unit="picture", desc="drawing") as bar:
        trajectories = introspect(
            model,
            params,
            processor,
            prompts,
            args.samples,
            args.rounds,
            sampling,
            args.seed,
            args.context,
            args.batch,
            progress=bar.update,
        )
    write(args.out, trajectories, args.seed, f"{args.checkpoint}: draw, look, draw again")
    print(args.out / "storyboard.png")


if __name__ == "__main__":
    cli.run(main)

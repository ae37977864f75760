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

from janus_jax import cli
from janus_jax.checkpoints import loading
from janus_jax.errors import UserError
from janus_jax.results.storyboard import storyboard
from janus_jax.sampling import flags
from janus_jax.sampling.introspect import introspect


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
    flags.add_drawing(parser)
    args = parser.parse_args(argv)
    cli.at_least(1, samples=args.samples, rounds=args.rounds)
    sampling, prompts = flags.drawing(args), read_prompts(args)
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

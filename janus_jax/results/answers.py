"""Question answering on the embedded world: whether a model that learnt to draw still says what it sees."""

import json
import time
from pathlib import Path

from janus_jax import cli
from janus_jax.results.records import Records
from janus_jax.results.scores import clustered
from janus_jax.rl.retention import answers, held_out_questions
from janus_jax.shapes import questions
from janus_jax.shapes.world import SHIPPED, World


def outcomes(model, params, processor, asked, first: int, seed: int, world: World = SHIPPED) -> list[dict]:
    """What a model answers, as JSON values. asked: questions with their pictures, numbered from `first` on."""
    said = answers(model, params, processor, asked, len(asked), seed)
    return [
        {
            "n": first + n,
            "kind": question.kind,
            "question": question.text,
            "answer": question.answer,
            "said": answer,
            "right": questions.right(question, answer, world),
        }
        for n, ((question, _), answer) in enumerate(zip(asked, said, strict=True))
    ]


def report(answered: list[dict], **facts) -> dict:
    """The share of right answers, of all and of each kind, with standard errors: each picture is one of its own."""

    def share(some):
        mean, error = clustered([one["right"] for one in some], range(len(some)))
        return round(mean, 5), round(error, 5) if len(some) > 1 else None

    kinds = {kind: share([one for one in answered if one["kind"] == kind]) for kind in questions.KINDS}
    overall, error = share(answered)
    return {
        **facts,
        "n": len(answered),
        "overall": {"right": overall},
        "categories": {kind: {"right": mean} for kind, (mean, _) in kinds.items()},
        "stderr": {"right": error, "categories": {kind: {"right": of} for kind, (_, of) in kinds.items()}},
    }


def evaluate(loaded, settings: dict, per_kind: int, world: World, out: Path, batch: int, seed: int) -> None:
    """Asks a checkpoint, which the context manager `loaded` opens (flags.loaded), and writes the report to `out`, the
    answers beside it as they come: a call that was stopped goes on with what is missing. settings: JSON values, what
    the answers depend on; a call with others does not go on."""
    cli.writable(out)
    records = Records(out.with_suffix(".answers.jsonl"), settings)
    with loaded as model, cli.keeping():
        asked = held_out_questions(per_kind, model[0].cfg.vq.image_size, seed, world)
        began, there = time.time(), len(records.found)
        with cli.Bar(len(asked), there, "asking", "question") as bar:
            for first in range(there, len(asked), batch):
                some = outcomes(*model, asked[first : first + batch], first, seed, world)
                records.append(some)
                bar.update(len(some))
    result = report(records.found, **settings, seconds=round(time.time() - began, 1))
    cli.write(out, json.dumps(result, indent=1) + "\n")
    kinds = "   ".join(f"{kind} {row['right']:.3f}" for kind, row in result["categories"].items())
    print(f"right {result['overall']['right']:.3f} ± {result['stderr']['right'] or 0:.3f}   {kinds}")

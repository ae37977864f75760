"""Question answering on the embedded world: whether a model that learnt to draw still says what it sees."""

import json
import time
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from janus_jax import cli
from janus_jax.checkpoints import loading
from janus_jax.results.records import Records
from janus_jax.results.scores import clustered
from janus_jax.sampling.answer import chat
from janus_jax.sampling.density import Sampling
from janus_jax.shapes import questions
from janus_jax.shapes.render import render

SAMPLING = Sampling(text_top_k=1, max_reason_tokens=40)  # greedy; the longest description fits
SYSTEM = ""  # as the embedded world's models are taught


def held_out(per_kind: int, side: int, seed: int = 0) -> list[tuple[questions.Question, Image.Image]]:
    """Held-out questions with their pictures, `per_kind` of each kind in the order of KINDS. side: in pixels. The n-th
    of a kind is a function of (seed, kind, n)."""
    asked = []
    for number, kind in enumerate(questions.KINDS):
        for n in range(per_kind):
            rng = np.random.default_rng([seed, number, n])
            question, scene = questions.draw(rng, kind, held_out=True)
            asked.append((question, Image.fromarray(render(scene, side, rng))))
    return asked


def outcomes(model, params, processor, asked, first: int, seed: int) -> list[dict]:
    """What a model answers, as JSON values. asked: questions with their pictures, numbered from `first` on."""
    said = chat(
        model,
        params,
        processor,
        [([picture], question.text) for question, picture in asked],
        SAMPLING,
        seed,
        batch=len(asked),
        system=SYSTEM,
    )
    return [
        {
            "n": first + n,
            "kind": question.kind,
            "question": question.text,
            "answer": question.answer,
            "said": answer,
            "right": questions.right(question, answer),
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


def evaluate(checkpoint, per_kind: int, out: Path, batch: int, seed: int) -> None:
    """Asks a checkpoint, and writes the report to `out`, the answers beside it as they come: a call that was stopped
    goes on with what is missing."""
    cli.writable(out)
    settings = {"checkpoint": str(checkpoint), "seed": seed, "per_kind": per_kind}
    records = Records(out.with_suffix(".answers.jsonl"), settings)
    model, params, processor = loading.load(checkpoint)
    asked = held_out(per_kind, model.cfg.vq.image_size, seed)
    began, there = time.time(), len(records.found)
    with cli.keeping(), tqdm(total=len(asked), initial=there, unit="question", desc="asking") as bar:
        for first in range(there, len(asked), batch):
            some = outcomes(model, params, processor, asked[first : first + batch], first, seed)
            records.append(some)
            bar.update(len(some))
    facts = {"suite": "shapes_questions", "checkpoint": str(checkpoint), "seed": seed}
    result = report(records.found, **facts, seconds=round(time.time() - began, 1))
    cli.write(out, json.dumps(result, indent=1) + "\n")
    kinds = "   ".join(f"{kind} {row['right']:.3f}" for kind, row in result["categories"].items())
    print(f"right {result['overall']['right']:.3f} ± {result['stderr']['right'] or 0:.3f}   {kinds}")

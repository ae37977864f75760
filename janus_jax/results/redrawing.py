"""What looking and saying are worth: the second picture of trajectories whose first is wrong and whose verdict is No,
drawn after the model's own reason, after that of another prompt, and after a bare No; against fresh samples."""

import dataclasses
import json
import time
from pathlib import Path

import numpy as np

from janus_jax import cli
from janus_jax.results.records import Records
from janus_jax.results.scores import clustered
from janus_jax.results.suites import Suite
from janus_jax.sampling.introspect import redrawn, rollouts
from janus_jax.sampling.rollout import Rollout
from janus_jax.shapes import mend, text, verify
from janus_jax.shapes.scene import Item
from janus_jax.shapes.verify import Reading

AFTER = ("own", "another", "bare")  # whose reason precedes the second picture


def variants(rollout: Rollout, eos: int) -> dict[str, Rollout]:
    """Trajectories of one round, and the same with other words: the verdict alone, and another prompt's, unless too
    many are of one prompt."""
    bare = np.zeros_like(rollout.reason_ids)
    bare[:, 0, 0], bare[:, 0, 1] = rollout.reason_ids[:, 0, 0], eos
    found = {
        "own": rollout,
        "bare": dataclasses.replace(rollout, reason_ids=bare, words=np.full_like(rollout.words, 2)),
    }
    shift = next((n for n in range(1, len(rollout)) if _all_others(rollout, n)), None)
    if shift is not None:
        order = np.roll(np.arange(len(rollout)), -shift)
        words = {"reason_ids": rollout.reason_ids[order], "words": rollout.words[order]}
        found["another"] = dataclasses.replace(rollout, **words)
    return found


def _all_others(rollout, shift):
    prompts = [request.prompt for request in rollout.requests]
    return all(a != b for a, b in zip(prompts, prompts[shift:] + prompts[:shift], strict=True))


def outcomes(model, params, processor, part: Rollout, sampling, seed: int, batch: int, world) -> list[dict]:
    """JSON values of trajectories of one round: whether the first picture is right, what it shows, and where it is
    wrong and the verdict is No of the second picture of each variant whether it is right and how many objects it
    keeps."""
    asks = [text.parse(request.prompt, world) for request in part.requests]
    first = [verify.read(picture, world) for picture in part.images[:, 0]]
    found = [
        {
            "prompt": request.prompt,
            "sample": int(sample),
            "right": verify.matches(ask, reading),
            "verdict": bool(verdict),
            "shows": [
                [item.shape, item.color, *(round(x, 4) for x in (item.x, item.y, item.size))] for item in reading.items
            ],
        }
        for request, sample, ask, reading, verdict in zip(
            part.requests, part.sample, asks, first, part.verdict[:, 0], strict=True
        )
    ]
    rows = np.array([i for i, one in enumerate(found) if not one["right"] and not one["verdict"]], np.int64)
    if len(rows):
        for name, rollout in variants(part.take(rows), processor.special.eos).items():
            second = redrawn(model, params, processor, rollout, sampling, seed, batch)
            for i, picture in zip(rows, second, strict=True):
                reading = verify.read(picture, world)
                found[i][name] = [verify.matches(asks[i], reading), mend.kept(first[i], reading)]
    return found


def figures(found: list[dict], clusters: dict[str, str]) -> dict[str, tuple[float, float]]:
    """(mean, standard error) of each figure; clusters: of each prompt what the errors are clustered by.

    Over trajectories with a wrong first picture and a No: right_NAME, how often the second picture is right, of each of
    AFTER and of "fresh", the first picture of the prompt's other samples; own_less_NAME, paired differences; kept_NAME,
    the share of the first picture's objects that it keeps.
    """
    by_prompt, rows = {}, []
    for one in found:
        by_prompt.setdefault(one["prompt"], []).append(one)
    for one in found:
        others = [other for other in by_prompt[one["prompt"]] if other is not one]
        if all(name in one for name in AFTER) and others and one["shows"]:
            before = _reading(one)
            row = {f"right_{name}": float(one[name][0]) for name in AFTER}
            row |= {f"kept_{name}": one[name][1] / len(before.items) for name in AFTER}
            row["right_fresh"] = np.mean([other["right"] for other in others])
            row["kept_fresh"] = np.mean([mend.kept(before, _reading(other)) for other in others]) / len(before.items)
            row |= {f"own_less_{name}": row["right_own"] - row[f"right_{name}"] for name in (*AFTER[1:], "fresh")}
            rows.append((clusters[one["prompt"]], row))
    names = rows[0][1] if rows else ()
    return {name: clustered([row[name] for _, row in rows], [owner for owner, _ in rows]) for name in names}


def _reading(one):
    return Reading(tuple(Item(*item) for item in one["shows"]))


def evaluate(loaded, settings: dict, asked: Suite, samples: int, sampling, out: Path, batch: int, seed: int) -> None:
    """Asks a checkpoint, which the context manager `loaded` opens (flags.loaded), and writes the report to `out`, what
    was drawn beside it as it comes: a call that was stopped goes on with what is missing. settings: JSON values, what
    the outcomes depend on; a call with others does not go on."""
    records = Records(out.with_suffix(".redraws.jsonl"), settings)
    there = {(one["prompt"], one["sample"]) for one in records.found}
    work = [(request, sample) for request in asked.requests for sample in range(samples)]
    missing = [(request, sample) for request, sample in work if (request.prompt, sample) not in there]
    with loaded as model, cli.keeping(), cli.Bar(len(work), len(work) - len(missing), "redrawing") as bar:
        began = time.time()
        if missing:
            for part in rollouts(*model, missing, 1, sampling, seed, batch=batch, on_codes=bar.codes):
                records.append(outcomes(*model, part, sampling, seed, batch, asked.world))
                bar.update(len(part))
    wanted = {(request.prompt, sample) for request, sample in work}
    found = [one for one in records.found if (one["prompt"], one["sample"]) in wanted]
    by_prompt, by_combination = (
        figures(found, clusters) for clusters in ({p: p for p in asked.categories}, asked.combinations)
    )
    result = {"split": "test", **settings, "samples": samples}
    result |= {"n": len(found), "redrawn": sum("own" in one for one in found)}
    result |= {"seconds": round(time.time() - began, 1), "cfg": sampling.cfg_weight}
    for key, of, which in (("figures", by_prompt, 0), ("stderr", by_prompt, 1)):
        result[key] = {name: round(pair[which], 5) for name, pair in of.items()}
    result["stderr_by_combination"] = {name: round(pair[1], 5) for name, pair in by_combination.items()}
    cli.write(out, json.dumps(result, indent=1) + "\n")
    print("errors are clustered by prompt, and by the combinations that prompts share")
    for name, (mean, error) in by_prompt.items():
        print(f"{name.replace('_', ' ')} {mean:.3f} ± {error:.3f} and ± {by_combination[name][1]:.3f}")

"""The pictures of an evaluation: a folder of files and a page that shows them with the verifier's word."""

import itertools
from pathlib import Path

from janus_jax import cli
from janus_jax.results import index
from janus_jax.results.gallery import save


def numbers(prompts, outcomes) -> dict[str, int]:
    """A number for each prompt, for the names of its pictures: the one that outcomes have already, or a new one."""
    found = {one["prompt"]: int(one["images"][0].partition("_")[0]) for one in outcomes if "images" in one}
    fresh = itertools.count(max(found.values(), default=-1) + 1)
    return {prompt: found[prompt] if prompt in found else next(fresh) for prompt in prompts}


def keep(folder: Path, numbers: dict[str, int], trajectories, outcomes) -> None:
    """Writes the pictures of trajectories, and into the outcome of each the files' names. numbers: of the prompts.
    Raises UserError where they cannot be written."""
    for trajectory, outcome in zip(trajectories, outcomes, strict=True):
        number = numbers[trajectory.prompt]
        outcome["images"] = [f"{number:04d}_{trajectory.sample}_{turn}.png" for turn in range(len(trajectory.rounds))]
        for shot, name in zip(trajectory.rounds, outcome["images"], strict=True):
            save(shot.image, folder / name)
        if trajectory.request.source is not None:
            outcome["source"] = f"{number:04d}_source.png"
            save(trajectory.request.source, folder / outcome["source"])


def write_page(folder: Path, title: str, facts: dict, outcomes) -> Path | None:
    """Writes folder/index.html of the outcomes whose pictures were kept, and returns its path; None where there are
    none. facts: settings and figures by name."""
    stories = [_story(outcome) for outcome in outcomes if "images" in outcome]
    if not stories:
        return None
    path = folder / "index.html"
    cli.write(path, index.page(title, facts, stories))
    return path


def _story(outcome) -> index.Story:
    columns = (outcome[name] for name in ("images", "verdicts", "p_yes", "reasons", "right"))
    shots = [
        index.Shot(image, verdict, p_yes, reason, ("verifier: right" if right else "verifier: wrong", right))
        for image, verdict, p_yes, reason, right in zip(*columns, strict=True)
    ]
    return index.Story(outcome["prompt"], outcome["sample"], shots, outcome["final"], outcome.get("source"))

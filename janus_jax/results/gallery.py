"""A folder of drawn pictures: images/*.png, trajectories.jsonl, storyboard.png. It grows chunk by chunk, and a command
that was stopped goes on with what is missing."""

from pathlib import Path

from janus_jax import cli
from janus_jax.errors import UserError
from janus_jax.results.records import Records
from janus_jax.results.storyboard import LIMIT, storyboard
from janus_jax.sampling.rollout import Round, Trajectory
from janus_jax.sequences import images
from janus_jax.sequences.request import Request

LINES = "trajectories.jsonl"


class Gallery:
    """The pictures of (request, sample)s in the folder `out`. settings: how they are drawn, JSON values by name. Raises
    UserError where the folder holds something else, or pictures that were drawn otherwise."""

    def __init__(self, out: Path, settings: dict):
        self._out = out
        cli.writable(out / LINES)
        if (out / "images").exists() and not (out / LINES).is_file():
            raise UserError(f"{out} has images of something else: choose another --out")
        self._records = Records(out / LINES, settings)
        self._numbers = {}
        for line in self._records.found:
            self._number(line["prompt"], line.get("source"))

    @property
    def lines(self) -> list[dict]:
        """What lies in trajectories.jsonl."""
        return self._records.found

    def _number(self, prompt, source=None) -> int:
        return self._numbers.setdefault((prompt, source), len(self._numbers))

    def missing(self, work, sources=None) -> list[tuple[Request, int]]:
        """Of (request, sample)s those that are not there yet. sources: {id of a source picture: its name}."""
        there = {(line["prompt"], line.get("source"), line["sample"]) for line in self._records.found}
        return [
            (request, sample)
            for request, sample in work
            if (request.prompt, self._source(request, sources), sample) not in there
        ]

    @staticmethod
    def _source(request, sources):
        return None if request.source is None else sources[id(request.source)]

    def add(self, trajectories, seed: int, sources=None) -> None:
        """Writes the pictures of trajectories, then their lines. sources: as in `missing`."""
        lines = []
        for t in trajectories:
            source = self._source(t.request, sources)
            number, rounds = self._number(t.prompt, source), []
            for turn, shot in enumerate(t.rounds):
                name = f"images/{number:04d}_{t.sample}_{turn}.png"
                self._save(shot.image, name)
                rounds.append({"image": name, "verdict": shot.verdict, "p_yes": shot.p_yes, "reason": shot.reason})
            line = {"prompt": t.prompt, "sample": t.sample, "seed": seed, "rounds": rounds, "final": t.final}
            lines.append(line if source is None else {**line, "source": source})
        self._records.append(lines)

    def _save(self, image, name):
        try:
            (self._out / "images").mkdir(parents=True, exist_ok=True)
            image.save(self._out / name)
        except OSError as error:
            raise UserError(f"cannot write {self._out / name}: {error.strerror}; make room, and start again") from error

    def finish(self, title: str, side: int = 160) -> Path:
        """Writes the storyboard, and returns its path: the trajectories that were drawn again first, since they are
        what one wants to see."""
        lines = sorted(self._records.found, key=lambda line: -len(line["rounds"]))[:LIMIT]
        path = self._out / "storyboard.png"
        try:
            storyboard([self._trajectory(line) for line in lines], side=side, title=title).save(path)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}; make room, and start again") from error
        return path

    def _trajectory(self, line) -> Trajectory:
        source = images.read(line["source"]) if line.get("source") else None
        rounds = [
            Round(
                image=images.read(self._out / shot["image"]),
                verdict=shot["verdict"],
                p_yes=shot["p_yes"],
                reason=shot["reason"],
                **dict.fromkeys(("codes", "reason_ids", "code_logps", "reason_logps", "context_codes")),
            )
            for shot in line["rounds"]
        ]
        return Trajectory(Request(line["prompt"], source), line["sample"], rounds)

"""A folder of drawn pictures: images/*.png as the model drew them, small ones also in enlarged/, trajectories.jsonl,
storyboard.png, index.html. It grows chunk by chunk, and a command that was stopped goes on with what is missing."""

from pathlib import Path

from PIL import Image

from janus_jax import cli
from janus_jax.errors import UserError
from janus_jax.results import index
from janus_jax.results.records import Records
from janus_jax.results.storyboard import LIMIT, storyboard
from janus_jax.sampling.rollout import Round, Trajectory
from janus_jax.sequences import images
from janus_jax.sequences.request import Request

LINES = "trajectories.jsonl"
LARGE = 256  # pixels: an enlarged picture has at least so many a side
SOURCE = 512  # and a source beside the page at most so many


def save(image: Image.Image, path: Path) -> None:
    """Writes a picture, into a folder that may not be there yet. Raises UserError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; make room, and start again") from error


def enlarged(image: Image.Image) -> Image.Image | None:
    """The picture with every pixel as a square of k x k, k the least that makes LARGE; None where 1 does."""
    factor = -(-LARGE // max(image.size))
    if factor == 1:
        return None
    return image.resize([factor * length for length in image.size], Image.Resampling.NEAREST)


class Gallery:
    """The pictures of (request, sample)s in the folder `out`. settings: how they are drawn, JSON values by name. Raises
    UserError where the folder holds something else, or pictures that were drawn otherwise."""

    def __init__(self, out: Path, settings: dict):
        self._out, self._settings, self._shown = out, settings, 0
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
                save(shot.image, self._out / name)
                if (large := enlarged(shot.image)) is not None:
                    save(large, self._out / _large(name))
                rounds.append({"image": name, "verdict": shot.verdict, "p_yes": shot.p_yes, "reason": shot.reason})
            line = {"prompt": t.prompt, "sample": t.sample, "seed": seed, "rounds": rounds, "final": t.final}
            lines.append(line if source is None else {**line, "source": source})
            if source is not None and not (self._out / _beside(number)).exists():
                small = t.request.source.convert("RGB")
                small.thumbnail((SOURCE, SOURCE))
                save(small, self._out / _beside(number))
        self._records.append(lines)
        if len(self.lines) > 1.3 * self._shown:  # so that all pages of a long work together are a few times the last
            self._write_index()

    def _write_index(self):
        lines = sorted(self.lines, key=lambda line: (self._number(line["prompt"], line.get("source")), line["sample"]))
        links = [name for name in ("storyboard.png", LINES) if (self._out / name).exists()]
        title = f"{self._settings.get('checkpoint', self._out.name)}: {len(lines)} trajectories"
        cli.write(self._out / "index.html", index.page(title, self._settings, map(self._story, lines), links))
        self._shown = len(lines)

    def _story(self, line) -> index.Story:
        shots = [
            index.Shot(**shot, large=_large(shot["image"]) if (self._out / _large(shot["image"])).exists() else None)
            for shot in line["rounds"]
        ]
        source = _beside(self._number(line["prompt"], line["source"])) if line.get("source") else None
        return index.Story(line["prompt"], line["sample"], shots, line["final"], source)

    def finish(self, title: str, side: int = 160) -> Path:
        """Writes the page, and the storyboard, whose path it returns: the trajectories that were drawn again first,
        since they are what one wants to see."""
        lines = sorted(self._records.found, key=lambda line: -len(line["rounds"]))[:LIMIT]
        path = self._out / "storyboard.png"
        save(storyboard([self._trajectory(line) for line in lines], side=side, title=title), path)
        self._write_index()
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


def _large(name: str) -> str:
    return name.replace("images/", "enlarged/", 1)


def _beside(number: int) -> str:
    return f"sources/{number:04d}.png"

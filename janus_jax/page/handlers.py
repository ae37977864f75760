"""What the page's buttons do: generators of (status line, HTML), without gradio."""

import dataclasses
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from janus_jax.page import limits, view
from janus_jax.sampling.answer import answering, judge
from janus_jax.sampling.density import Sampling
from janus_jax.sampling.stream import stream
from janus_jax.sequences.processor import Processor
from janus_jax.sequences.request import Request

COMPILING = "Working. The first request of a kind compiles its programs, which takes about a minute."


@dataclasses.dataclass(frozen=True)
class Handlers:
    """checkpoint: its name, for the command line; sampling: how it is drawn with unless asked otherwise; seconds: the
    most that a request may take. Each handler raises UserError for what cannot be asked."""

    checkpoint: str
    model: Any
    params: Any
    processor: Processor
    sampling: Sampling
    seconds: float

    def draw(self, prompt, samples, rounds, guidance, temperature, seed) -> Iterator[tuple[str, str]]:
        """Pictures of a prompt."""
        request = Request(limits.text(prompt, "prompt"))
        asked = ("generate", "--prompt", request.prompt)
        yield from self._drawn(request, asked, samples, rounds, guidance, temperature, seed)

    def edit(self, path, instruction, samples, rounds, guidance, temperature, seed) -> Iterator[tuple[str, str]]:
        """Edits of the picture in a file."""
        source = limits.picture(path)
        request = Request(limits.text(instruction, "instruction"), source)
        asked = ("edit", "--image", Path(path).name, "--instruction", request.prompt)
        yield from self._drawn(request, asked, samples, rounds, guidance, temperature, seed)

    def _drawn(self, request, asked, samples, rounds, guidance, temperature, seed):
        told = limits.numbers(samples=samples, rounds=rounds, guidance=guidance, temperature=temperature, seed=seed)
        sampling = dataclasses.replace(self.sampling, cfg_weight=told["guidance"], temperature=told["temperature"])
        yield COMPILING, ""
        begun, codes = time.monotonic(), self.model.cfg.vq.tokens
        steps = stream(
            self.model,
            self.params,
            self.processor,
            [request],
            told["samples"],
            told["rounds"],
            sampling,
            told["seed"],
        )
        for found in limits.within(self.seconds, steps):
            turn = max(len(t.rounds) for t in found)
            yield f"Picture {turn} of at most {told['rounds']}", view.trajectories(found, codes, done=False)
        yes = sum(t.rounds[t.final].verdict for t in found)
        status = f"Done in {time.monotonic() - begun:.0f} s. The model says Yes to {yes} of {len(found)}."
        yield status, view.trajectories(found, codes, True, self._command(asked, sampling, told))

    def _command(self, asked, sampling, told) -> str:
        """The same from the command line."""
        command, *words = asked
        numbers = {"samples": told["samples"], "rounds": told["rounds"], "cfg": sampling.cfg_weight}
        numbers |= {"temperature": sampling.temperature, "seed": told["seed"], "out": "out"}
        if (dtype := np.dtype(self.model.cfg.dtype).name) != "float32":
            numbers["dtype"] = dtype
        words += [word for name, value in numbers.items() for word in (f"--{name}", f"{value}")]
        return shlex.join(["python", "-m", f"janus_jax.{command}", "--checkpoint", self.checkpoint, *words])

    def ask(self, path, question) -> Iterator[tuple[str, str]]:
        """The answer to a question about the picture in a file, or about none, as it comes."""
        pictures = [] if path is None else [limits.picture(path)]
        question = limits.text(question, "question")
        yield COMPILING, ""
        steps = answering(self.model, self.params, self.processor, pictures, question)
        for text in limits.within(self.seconds, steps):
            yield "Answering", view.answer(text)
        yield "Done.", view.answer(text)

    def judge(self, path, prompt, source) -> Iterator[tuple[str, str]]:
        """Whether the picture in a file matches a prompt or, with a source picture, is the edit that was asked for."""
        image = limits.picture(path)
        before = None if source is None else limits.picture(source, "source picture")
        request = Request(limits.text(prompt, "prompt"), before)
        yield COMPILING, ""
        [(p_yes, reason)] = judge(self.model, self.params, self.processor, [image], [request])
        yield "Done.", view.verdict(p_yes, reason)

"""A judge behind an OpenAI-compatible chat endpoint (vLLM, SGLang): P(yes) at the first token of its answer."""

import math
from collections.abc import Callable

import numpy as np

from janus_jax.rewards.endpoint import Endpoint, png
from janus_jax.rewards.judge import Judge, Judged

TOP = 20  # the most that OpenAI's interface allows, and what vLLM allows unless told otherwise
ANSWER = "Answer with one word, yes or no."
# What may stand before a word in a token: blanks, or their stand-ins where a server shows raw pieces (SentencePiece,
# byte-level BPE)
LEAST_MASS = 0.05  # of yes and no together
BLANKS = " \t\r\n\u2581\u0120"


def whole_prompt(prompt: str) -> list[str]:
    """The one question about the prompt as a whole."""
    return [f'Does this image match the description "{prompt}"?']


def make_judge(endpoint: Endpoint, model: str, questions: Callable[[str], list[str]] = whole_prompt) -> Judge:
    """A judge that asks `model` every one of questions(prompt), at least one, about the picture, and takes the mean of
    P(yes) (several atomic questions: DSG, Cho et al. 2023, arXiv 2310.18235). A picture of which one question has no
    answer has no reward: a mean over the others would be of another scale."""

    def body(job):
        _, question, picture = job
        content = [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
            {"type": "text", "text": f"{question}\n{ANSWER}"},
        ]
        return {
            "model": model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": TOP,
        }

    def judge(prompts, images) -> Judged:
        jobs = []
        for n, (prompt, image) in enumerate(zip(prompts, images, strict=True)):
            picture = png(image)
            jobs += [(n, question, picture) for question in questions(prompt)]
        totals, counts, errors = np.zeros(len(prompts)), np.zeros(len(prompts)), [""] * len(prompts)
        for (n, *_), (score, error) in zip(jobs, endpoint.ask(jobs, body, p_yes), strict=True):
            totals[n] += score
            counts[n] += 1
            errors[n] = errors[n] or error
        return Judged((totals / counts).astype(np.float32), tuple(errors))

    return judge


def p_yes(answer) -> float:
    """P(yes) in [0, 1] of a chat completion (the JSON value): the mass of all spellings of "yes" (case, leading blanks)
    over that of "yes" and "no" among the `top_logprobs` of the first token. Raises ValueError where both together have
    less than LEAST_MASS, since who begins to say something else has not answered; LookupError or TypeError where the
    answer has another form."""
    (first, *_) = (answer["choices"][0].get("logprobs") or {}).get("content") or [{}]
    if not first.get("top_logprobs"):
        raise ValueError("no logprobs: the server has to allow top_logprobs (vLLM: --max-logprobs 20)")
    mass = {"yes": 0.0, "no": 0.0}
    for entry in first["top_logprobs"]:
        word, logprob = entry["token"].strip(BLANKS).lower(), entry["logprob"]
        if word in mass:
            if not logprob <= 1e-3:  # rounding aside; true for NaN, too
                raise ValueError(f"the logprob of {entry['token']!r} is {logprob!r}")
            mass[word] += math.exp(logprob)
    if sum(mass.values()) < LEAST_MASS:
        seen = ", ".join(repr(entry["token"]) for entry in first["top_logprobs"][:5])
        raise ValueError(
            f"yes and no have {sum(mass.values()):.2g} of the first token's probability ({LEAST_MASS} is needed), "
            f"whose logprobs begin with {seen}"
        )
    return mass["yes"] / sum(mass.values())

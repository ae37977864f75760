"""A judge behind an OpenAI-compatible chat endpoint (vLLM, SGLang): P(yes) at the first token of its answer."""

import math
from collections.abc import Callable

from janus_jax.rewards.endpoint import Endpoint, gathered, png, pngs
from janus_jax.rewards.judge import FOLLOWING, MATCH, PRESERVING, Judge, Judged, are_edits

TOP = 20  # the most that OpenAI's interface allows, and what vLLM allows unless told otherwise
ANSWER = "Answer with one word, yes or no."
# What may stand before a word in a token: blanks, or their stand-ins where a server shows raw pieces (SentencePiece,
# byte-level BPE)
LEAST_MASS = 0.05  # of yes and no together
BLANKS = " \t\r\n\u2581\u0120"


def whole_prompt(prompt: str) -> list[str]:
    """The one question about the prompt as a whole."""
    return [f'Does this image match the description "{prompt}"?']


def of_edit(instruction: str) -> dict[str, str]:
    """The question of each score of an edit."""
    head = f'The second image is an edit of the first one. The instruction was "{instruction}". '
    return {
        FOLLOWING: f"{head}Does the second image follow the instruction?",
        PRESERVING: f"{head}Is everything that the instruction does not mention unchanged in the second image?",
    }


def make_judge(endpoint: Endpoint, model: str, questions: Callable[[str], list[str]] = whole_prompt) -> Judge:
    """A judge that asks `model` every one of questions(prompt), at least one, about the picture, and takes the mean of
    P(yes) as "match" (several atomic questions: DSG, Cho et al. 2023, arXiv 2310.18235). Of an edit it shows the source
    and the picture, and asks whether the instruction is followed, and whether the rest is preserved."""

    def body(job):
        *_, question, shown = job
        urls = [{"url": f"data:image/png;base64,{picture}"} for picture in shown]
        return {
            "model": model,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        *({"type": "image_url", "image_url": url} for url in urls),
                        {"type": "text", "text": f"{question}\n{ANSWER}"},
                    ],
                }
            ],
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": TOP,
        }

    def judge(requests, pictures) -> Judged:
        edits = are_edits(requests)
        sources = pngs(request.source for request in requests) if edits else {}
        jobs = []
        for n, (request, picture) in enumerate(zip(requests, pictures, strict=True)):
            drawn = png(picture)
            if edits:
                shown = (sources[id(request.source)], drawn)
                jobs += [(n, name, question, shown) for name, question in of_edit(request.prompt).items()]
            else:
                jobs += [(n, MATCH, question, (drawn,)) for question in questions(request.prompt)]
        return gathered(len(requests), jobs, endpoint.ask(jobs, body, p_yes))

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

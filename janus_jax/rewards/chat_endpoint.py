"""A judge behind an OpenAI-compatible chat endpoint (vLLM, SGLang): P(yes) at the first token of its answer."""

import math
import re
from collections.abc import Callable, Mapping

from janus_jax.rewards.endpoint import Endpoint, gathered, png, pngs
from janus_jax.rewards.judge import FOLLOWING, MATCH, PRESERVING, Judge, Judged, are_edits

TOP = 20  # the most that OpenAI's interface allows, and what vLLM allows unless told otherwise
ANSWER = "Answer with one word, yes or no."
LEAST_MASS = 0.05  # of yes and no together
# What may stand around a word in a token: blanks, or their stand-ins where a server shows raw pieces (SentencePiece,
# byte-level BPE), marks of speech and of emphasis
AROUND = " \t\r\n\u2581\u0120\u010a" + "\"'`\u2018\u2019\u201c\u201d\u00ab\u00bb.,;:!?*_()"
# How the answers of models begin that think before they speak, in one token or in its first piece
THINKING = ("<think", "<|channel|>", "<|begin_of_thought|>", "[think", "\u25c1think", "<seed:think", "<reason")
FILTERED = "content filter"  # how the reason begins where a server withholds its answer


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


def make_judge(
    endpoint: Endpoint,
    model: str,
    questions: Callable[[str], list[str]] = whole_prompt,
    top_logprobs: int = TOP,
    limit_name: str = "max_tokens",
    extra_body: Mapping | None = None,
) -> Judge:
    """A judge that asks `model` every one of questions(prompt), at least one, about the picture, and takes the mean of
    P(yes) as "match" (several atomic questions: DSG, Cho et al. 2023, arXiv 2310.18235). Of an edit it shows the source
    and the picture, and asks whether the instruction is followed, and whether the rest is preserved.

    top_logprobs: how many alternatives to the first token the server is asked for; limit_name: what it calls the most
    tokens of an answer; extra_body: what else the request says."""

    def body(job):
        *_, question, shown = job
        urls = [{"url": f"data:image/png;base64,{picture}"} for picture in shown]
        content = [{"type": "image_url", "image_url": url} for url in urls]
        content.append({"type": "text", "text": f"{question}\n{ANSWER}"})
        return {
            "model": model,
            "messages": [{"role": "user", "content": content}],
            limit_name: 1,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": top_logprobs,
            **(extra_body or {}),
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
    """P(yes) in [0, 1] of a chat completion (the JSON value): the mass of all spellings of "yes" (case, blanks, marks
    around it) over that of "yes" and "no" among the `top_logprobs` of the first token. Raises ValueError where both
    together have less than LEAST_MASS, since who begins to say something else has not answered, where a model begins to
    think, or a filter withholds the answer; LookupError or TypeError where the answer has another form."""
    choice = answer["choices"][0]
    message = choice.get("message") or {}
    if choice.get("finish_reason") == "content_filter" or message.get("refusal"):
        raise ValueError(f"{FILTERED}: the server withholds its answer ({message.get('refusal') or 'content_filter'})")
    (first, *_) = (choice.get("logprobs") or {}).get("content") or [{}]
    if not first.get("top_logprobs"):
        raise ValueError("no logprobs: the server has to allow top_logprobs (vLLM: --max-logprobs 20)")
    entries = [(text_of(entry), entry["logprob"]) for entry in first["top_logprobs"]]
    likeliest = max(entries, key=lambda entry: entry[1])[0]
    begun = likeliest.strip(AROUND).lower()
    if message.get("reasoning_content") or message.get("reasoning") or begun == "<" or begun.startswith(THINKING):
        raise ValueError(
            f"the model thinks first (it begins with {likeliest!r}): turn that off, as by reward.extra_body = "
            '{"chat_template_kwargs": {"enable_thinking": False}}'
        )
    mass = {"yes": 0.0, "no": 0.0}
    for text, logprob in entries:
        word = text.strip(AROUND).lower()
        if word in mass:
            if not logprob <= 1e-3:  # rounding aside; true for NaN, too
                raise ValueError(f"the logprob of {text!r} is {logprob!r}")
            mass[word] += math.exp(logprob)
    if sum(mass.values()) < LEAST_MASS:
        seen = ", ".join(repr(text) for text, _ in entries[:5])
        raise ValueError(
            f"yes and no have {sum(mass.values()):.2g} of the first token's probability ({LEAST_MASS} is needed), "
            f"whose logprobs begin with {seen}"
        )
    return mass["yes"] / sum(mass.values())


def text_of(entry) -> str:
    """The text of a token in a list of logprobs: by its bytes, where the server says them (it may show ids or escapes
    for the token itself), else the token, whose byte pieces are read (<0x59>, bytes:\\x59)."""
    if isinstance(entry.get("bytes"), list) and entry["bytes"]:
        return bytes(entry["bytes"]).decode("utf-8", "replace")
    token = re.sub(r"<0x([0-9A-Fa-f]{2})>", r"\\x\1", entry["token"].removeprefix("bytes:"))
    return re.sub(r"\\x([0-9A-Fa-f]{2})", lambda found: chr(int(found[1], 16)), token)

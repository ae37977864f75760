"""A judge behind the HTTP protocol of the released code: tensors of PNG bytes and of one text, one score.

Of a picture of a prompt the text is the prompt. Of an edit it is a whole question to a model that sees both pictures,
which InternVL wants marked as <image>: two questions, two scores.
"""

from janus_jax.rewards.endpoint import Endpoint, gathered, png, pngs
from janus_jax.rewards.judge import FOLLOWING, MATCH, PRESERVING, Judge, Judged, are_edits

EDIT = "Image-1, the original: <image>\nImage-2, the same after an edit: <image>\nInstruction of the edit: {}\n"
ANSWER = " Answer yes or no first, then say why."
QUESTIONS = {
    FOLLOWING: "Does the edited image follow the instruction?",
    PRESERVING: "Is everything that the instruction does not mention the same in the edited image?",
}


def make_judge(endpoint: Endpoint) -> Judge:
    """A judge that asks the endpoint once per picture, of edits once per score. The released code takes 0 for a reward
    after its fifth failure; here it is missing."""

    def body(job):
        _, _, text, source, picture = job
        tensors = {"images": picture, "captions": text}
        if source is not None:
            tensors = {"images1": source, "images2": picture, "prompts": text}
        values = {name: "stringValues" if isinstance(value, list) else "byteValues" for name, value in tensors.items()}
        return {
            "features": {},
            "tensorFeatures": {name: {"shapes": [1], values[name]: value} for name, value in tensors.items()},
        }

    def judge(requests, pictures) -> Judged:
        edits = are_edits(requests)
        sources = pngs(request.source for request in requests) if edits else {}
        jobs = []
        for n, (request, picture) in enumerate(zip(requests, pictures, strict=True)):
            drawn = png(picture)
            if edits:
                source, head = sources[id(request.source)], EDIT.format(request.prompt)
                jobs += [(n, name, [head + question + ANSWER], source, drawn) for name, question in QUESTIONS.items()]
            else:
                jobs.append((n, MATCH, [request.prompt], None, drawn))
        return gathered(len(requests), jobs, endpoint.ask(jobs, body, score_of))

    return judge


def score_of(answer):
    """The score in an answer {"success": true, "resultMap": {"scores": s}}, s a number or a list of one. Raises
    ValueError where there is no success, LookupError or TypeError where the answer has another form."""
    if answer["success"] is not True:
        raise ValueError(f"success is {answer['success']!r}")
    score = answer["resultMap"]["scores"]
    if isinstance(score, list):
        (score,) = score
    return score

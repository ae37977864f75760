"""Looking at pictures and speaking about them: `chat` answers questions, `judge` compares pictures with prompts."""

from collections.abc import Callable, Iterator

import numpy as np

from janus_jax.errors import UserError
from janus_jax.parallel import shards
from janus_jax.sampling import decode
from janus_jax.sampling.density import Sampling
from janus_jax.sampling.rounds import TEXT_STEP, bucket
from janus_jax.sequences.grammar import Grammar
from janus_jax.sequences.request import Request, as_requests
from janus_jax.sequences.row import Row, collate

GREEDY_ANSWER = Sampling(text_top_k=1, max_reason_tokens=512)
GREEDY_VERDICT = Sampling(text_top_k=1)
VERDICT_ALONE = Sampling(text_top_k=1, max_reason_tokens=1)


def chat(
    model,
    params,
    processor,
    questions,
    sampling: Sampling = GREEDY_ANSWER,
    seed: int = 0,
    batch: int = 8,
    system: str | None = None,
    listen: Callable[[int, str], None] | None = None,
) -> list[str]:
    """Answers to questions about pictures.

    questions: pairs (images, question); images: a list of PIL images, shown in that order before the question, or [].
    sampling: the text's part of it counts, max_reason_tokens bounds the answer. batch: how many are answered together;
    an answer depends on (seed, its images, its question) alone, up to rounding. system: the sentence that opens every
    prompt, or ""; None: the processor's. listen: called with (index of the question, piece of text) as words come.
    Raises UserError for an empty question, one that is too long with its pictures, or what is no pair.
    """
    said = [""] * len(questions)
    for n, text in _chatting(model, params, processor, questions, sampling, seed, batch, system, watched=bool(listen)):
        if listen and len(text) > len(said[n]):
            listen(n, text[len(said[n]) :])
        said[n] = text
    return said


def answering(
    model,
    params,
    processor,
    images,
    question: str,
    sampling: Sampling = GREEDY_ANSWER,
    seed: int = 0,
    system: str | None = None,
) -> Iterator[str]:
    """The answer to one question about pictures as it comes: after each word all that is said, at last what `chat`
    returns. Arguments and errors as of `chat`; to stop, close the generator."""
    for _, text in _chatting(model, params, processor, [(images, question)], sampling, seed, 1, system, watched=True):
        yield text


def _is_question(pair) -> bool:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        return False
    return isinstance(pair[0], tuple | list) and isinstance(pair[1], str)


def _chatting(model, params, processor, questions, sampling, seed, batch, system, watched):
    """(index of the question, its answer), see _speaking."""
    grammar = Grammar.of(model.cfg, processor.tokenizer)
    system = processor.system if system is None else system
    if not all(map(_is_question, questions)):
        raise UserError('a question is a pair of pictures and a text: give [([image], "What is it?"), ...]')

    def row(pictures, question):
        made = Row()
        grammar.answer(made, [processor.for_understanding(picture) for picture in pictures], question, system)
        return made

    rows = [lambda pair=pair: row(*pair) for pair in questions]
    keys = [decode.row_key(seed, Request(question), 0, 0) for _, question in questions]
    for n, text, _ in _speaking(model, params, processor, rows, keys, sampling, batch, verdict=False, watched=watched):
        yield n, text


def judge(
    model, params, processor, images, prompts, sampling: Sampling = GREEDY_VERDICT, seed: int = 0, batch: int = 8
) -> list[tuple[float, str]]:
    """(p_yes, reason) of each picture with its prompt: what `introspect` asks of a first picture.

    images: PIL images; prompts: as many texts, or Requests, of which those with a source picture are edits. p_yes:
    softmax over {Yes, No} before temperature; reason: text, from "Yes" or "No" on. batch: pairs at a time, as in
    `chat`. Raises UserError for an empty or overlong prompt, or where the numbers of pictures and prompts differ.
    """
    if len(images) != len(prompts):
        raise UserError(f"{len(images)} pictures do not go with {len(prompts)} prompts: give one prompt per picture")
    grammar, requests = Grammar.of(model.cfg, processor.tokenizer), as_requests(prompts)

    def row(picture, request):
        made = Row()
        grammar.ask(made, request, request.source and processor.for_understanding(request.source))
        grammar.look(made, processor.for_understanding(picture))
        return made

    rows = [lambda pair=pair: row(*pair) for pair in zip(images, requests, strict=True)]
    keys = [decode.row_key(seed, request, 0, 1) for request in requests]
    steps = _speaking(model, params, processor, rows, keys, sampling, batch, verdict=True)
    return [(p_yes, text) for _, text, p_yes in steps]


def yes_probabilities(model, params, processor, images, prompts, batch: int = 8) -> np.ndarray:
    """P(yes) f32[N] of each picture with its prompt: `judge` without its reasons, which are most of its work."""
    said = judge(model, params, processor, images, prompts, VERDICT_ALONE, batch=batch)
    return np.array([p_yes for p_yes, _ in said], np.float32)


def _speaking(model, params, processor, rows, keys, sampling, batch, verdict, watched=False):
    """Yields (n, text, p_yes) of what follows each row, in order; watched: also after each word, as far as it is said.
    rows: functions that make one, so that few pictures are held at a time."""
    special, params = processor.special, decode.prepared(params)
    batch = max(1, min(batch, len(rows)))
    for begin in range(0, len(rows), batch):
        places = np.minimum(np.arange(begin, begin + batch), len(rows) - 1)  # one size for all batches
        live = min(batch, len(rows) - begin)
        made = [rows[i]() for i in places]
        length = bucket(max(map(len, made)), TEXT_STEP)
        slots = length + sampling.max_reason_tokens
        if slots > model.cfg.llama.max_positions:
            raise UserError(
                f"text, pictures and {sampling.max_reason_tokens} tokens of answer take {slots} positions, the model "
                f"has {model.cfg.llama.max_positions}: give fewer pictures, shorter text, or allow fewer tokens"
            )
        pictures = max(len(row.pictures) for row in made)
        context = collate(made, length, special.pad, pictures=pictures)
        with_keys = np.stack([keys[i] for i in places]), sampling, special, verdict
        cache, hidden = decode.prefill(model, params, context, slots)
        if watched:
            for _, *said in decode.speaking(model, params, cache, hidden, *with_keys):
                ids, _, p_yes = shards.whole(said)
                for n in range(live):
                    # half of a character waits for the rest of it
                    yield begin + n, processor.decode(ids[n]).rstrip("\ufffd"), float(p_yes[n])
        else:
            ids, _, p_yes = shards.whole(decode.speak(model, params, cache, hidden, *with_keys)[1:])
        for n in range(live):
            yield begin + n, processor.decode(ids[n]), float(p_yes[n])

"""Looking at pictures and speaking about them: `chat` answers questions, `judge` compares pictures with prompts."""

import contextlib
from collections.abc import Callable

import numpy as np

from janus_jax.errors import UserError
from janus_jax.parallel import shards
from janus_jax.sampling import decode
from janus_jax.sampling.density import Sampling
from janus_jax.sampling.rounds import TEXT_STEP, bucket
from janus_jax.sequences import tokens
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
    system: str = tokens.SYSTEM_PROMPT,
    listen: Callable[[int, str], None] | None = None,
) -> list[str]:
    """Answers to questions about pictures.

    questions: pairs (images, question); images: a list of PIL images, shown in that order before the question, or [].
    sampling: the text's part of it counts, max_reason_tokens bounds the answer. batch: how many are answered together;
    an answer depends on (seed, its images, its question) alone, up to rounding. system: the sentence that opens every
    prompt, or "". listen: called with (index of the question, piece of text) as words come; parameters must then lie on
    one device. Raises UserError for an empty question, or one that is too long with its pictures.
    """
    grammar = Grammar.of(model.cfg, processor.tokenizer)

    def row(pictures, question):
        made = Row()
        grammar.answer(made, [processor.for_understanding(picture) for picture in pictures], question, system)
        return made

    rows = [lambda pair=pair: row(*pair) for pair in questions]
    keys = [decode.row_key(seed, Request(question), 0, 0) for _, question in questions]
    said = _speak(model, params, processor, rows, keys, sampling, batch, verdict=False, listen=listen)
    return [text for text, _ in said]


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
    said = _speak(model, params, processor, rows, keys, sampling, batch, verdict=True)
    return [(p_yes, text) for text, p_yes in said]


def yes_probabilities(model, params, processor, images, prompts, batch: int = 8) -> np.ndarray:
    """P(yes) f32[N] of each picture with its prompt: `judge` without its reasons, which are most of its work."""
    said = judge(model, params, processor, images, prompts, VERDICT_ALONE, batch=batch)
    return np.array([p_yes for p_yes, _ in said], np.float32)


def _speak(model, params, processor, rows, keys, sampling, batch, verdict, listen=None):
    """(text, p_yes) that follows each row; rows: functions that make one, so that few pictures are held at a time."""
    special, said, params = processor.special, [], decode.prepared(params)
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
        cache, hidden = decode.prefill(model, params, context, slots)
        hear, tell = _teller(processor, begin, live, listen) if listen else (None, lambda n, text: None)
        own = np.stack([keys[i] for i in places])
        with decode.listening(hear) if listen else contextlib.nullcontext() as listener:
            _, ids, _, p_yes = decode.speak(
                model, params, cache, hidden, own, sampling, special, verdict=verdict, listener=listener
            )
        ids, p_yes = shards.whole((ids, p_yes))
        said += [(processor.decode(ids[n]), float(p_yes[n])) for n in range(live)]
        for n in range(live):
            tell(n, said[begin + n][0])
    return said


def _teller(processor, first, count, listen):
    """(hear, tell): hear turns every step's tokens i32[B] into pieces of text of rows first..first+count; tell(n, text)
    passes on what is new in the n-th row's text."""
    said, told = [[] for _ in range(count)], [""] * count

    def tell(n, text):
        if len(text) > len(told[n]):
            listen(first + n, text[len(told[n]) :])
            told[n] = text

    def hear(step):
        for n, token in enumerate(np.asarray(step)[:count]):
            said[n].append(int(token))
            tell(n, processor.decode(said[n]).rstrip("\ufffd"))  # half of a character waits for the rest of it

    return hear, tell

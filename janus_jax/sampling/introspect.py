"""Draw, look, say what is wrong, draw again: the trajectories of the method, for users and for stage 2."""

from collections.abc import Callable, Iterator

import numpy as np

from janus_jax.errors import UserError
from janus_jax.parallel import shards
from janus_jax.sampling import contexts, decode, released
from janus_jax.sampling.contexts import Drawing
from janus_jax.sampling.density import Sampling
from janus_jax.sampling.rollout import Rollout, Trajectory
from janus_jax.sampling.rounds import TEXT_STEP, bucket, fill, fresh, padded, paint
from janus_jax.sequences.grammar import Grammar
from janus_jax.sequences.request import as_requests


def introspect(
    model,
    params,
    processor,
    prompts,
    samples: int = 4,
    rounds: int = 3,
    sampling: Sampling | None = None,
    seed: int = 0,
    context: str = "codes",
    batch: int = 64,
    always: bool = False,
    released: bool = False,
    progress: Callable[[int], None] | None = None,
) -> list[Trajectory]:
    """Draws `samples` pictures of each prompt, with up to `rounds` rounds of looking and drawing again.

    prompts: texts, or Requests. sampling: None = as the checkpoint asks for. context: what the painter's next round
    sees of a picture: "codes" (the sampled ones, their keys and values kept) or "reencode" (those of the decoded, 8-bit
    picture). batch: rows per chunk; it changes the speed, not the pictures (in f32 on a CPU; elsewhere up to rounding).
    always: draw again even after a Yes. released: as the released code draws, for comparison with it: again whatever
    the verdict, after pictures that are encoded again, with positions that count padding, too. progress: called with
    the number of finished trajectories after each chunk. Where the parameters lie on the devices of several hosts, all
    of them call this with the same arguments, and get the same.

    Returns trajectories in the order of prompts, then samples. Raises UserError for an empty or overlong prompt.
    """
    settings = {"context": context, "batch": batch, "always": always, "as_released": released}
    trajectories, sampling = [], sampling or Sampling(**processor.drawn_with)
    if samples < 1:
        raise UserError(f"samples must be at least 1, not {samples}")
    work = [(request, sample) for request in as_requests(prompts) for sample in range(samples)]
    for part in rollouts(model, params, processor, work, rounds, sampling, seed, **settings):
        trajectories += part.trajectories(processor)
        if progress:
            progress(len(part))
    return trajectories


def rollouts(
    model,
    params,
    processor,
    work,
    rounds: int,
    sampling: Sampling,
    seed: int,
    *,
    context: str = "codes",
    batch: int = 64,
    always: bool = False,
    as_released: bool = False,
    prompt_tokens: int | None = None,
    refill: bool = True,
    on_codes: Callable[[int, int], None] | None = None,
) -> Iterator[Rollout]:
    """`introspect` chunk by chunk, as Rollouts of arrays, of some work: (Request, sample)s.

    as_released: `released` of `introspect`. prompt_tokens: the slots of every prompt; None: those of the call's
    longest, rounded up. refill: rows that go on wait for those of other chunks, so that no round is drawn half empty,
    for which the caches of up to `rounds` - 1 chunks more are held. on_codes: called with (codes drawn, codes of a
    picture) while pictures come into being. Raises UserError before anything is drawn."""
    if rounds < 1:
        raise UserError(f"rounds must be at least 1, not {rounds}")
    work = list(work)
    drawing = drawing_of(
        model,
        params,
        processor,
        [request for request, _ in work],
        sampling,
        rounds,
        seed,
        batch=len(work) if as_released else min(batch, bucket(len(work), 4)),
        prompt_tokens=prompt_tokens,
        reencode=as_released or reencodes(context),
        always=as_released or always,
        as_released=as_released,
        on_codes=on_codes,
    )
    return fill(drawing, work, released if as_released else contexts, refill)


def pictures(model, params, processor, requests, sample: int, sampling: Sampling, seed: int, batch: int):
    """First pictures alone, which nobody looks at: sample number `sample` of each request. Yields chunks, (codes
    i32[n,I], pixels u8[n,h,w,3]). Errors as of `rollouts`."""
    requests = as_requests(requests)
    drawing = drawing_of(model, params, processor, requests, sampling, 1, seed, batch=min(batch, len(requests)))
    for group in fresh(drawing, [(request, sample) for request in requests]):
        record, rows = group.record, padded(np.arange(len(group)), drawing.batch)
        contexts.encode_sources(drawing, record, rows)
        started = contexts.start_painting(drawing, record, rows)
        _, codes, _, pixels = paint(drawing, record, rows, 0, *started)
        yield shards.whole(codes)[: len(record)], pixels[: len(record)]


def redrawn(model, params, processor, rollout: Rollout, sampling: Sampling, seed: int, batch: int) -> np.ndarray:
    """The second pictures u8[B,h,w,3] of trajectories, after their first ones (as codes) and what is said of them,
    whatever the verdict. The rollout's words may be others than the model's. Errors as of `rollouts`."""
    size = min(batch, bucket(len(rollout), 4))
    drawing = drawing_of(model, params, processor, rollout.requests, sampling, 2, seed, batch=size, reencode=True)
    parts = []
    for begin in range(0, len(rollout), size):
        record = rollout.take(range(begin, min(begin + size, len(rollout))))
        rows = padded(np.arange(len(record)), size)
        started = contexts.redraw(drawing, None, record, rows, 0)
        parts.append(paint(drawing, record, rows, 1, *started)[3][: len(record)])
    return np.concatenate(parts)


def reencodes(context: str) -> bool:
    """Whether `context` is "reencode". Raises UserError where it is neither that nor "codes"."""
    if context not in ("codes", "reencode"):
        raise UserError(f"context {context!r} is neither 'codes' nor 'reencode'")
    return context == "reencode"


def drawing_of(
    model,
    params,
    processor,
    requests,
    sampling,
    rounds,
    seed,
    *,
    batch,
    prompt_tokens=None,
    reencode=False,
    always=False,
    as_released=False,
    on_codes=None,
) -> Drawing:
    """What stays the same for all rows. Raises UserError for requests that cannot be drawn, or not together."""
    if not requests:
        raise UserError("there are no prompts: give at least one")
    if len({request.source is None for request in requests}) > 1:
        raise UserError("some requests have a source picture and some have none: draw them in two calls")
    grammar = Grammar.of(model.cfg, processor.tokenizer)
    longest = max(sum(map(len, grammar.prompt(request))) for request in requests)
    sources = int(requests[0].source is not None)
    sizes = longest, rounds, sampling.max_reason_tokens, sources
    need, there = max(grammar.longest_painted(*sizes), grammar.longest_judged(*sizes)), model.cfg.llama.max_positions
    if longest + (1 + sources) * grammar.codes > there:
        raise UserError(
            f"a prompt has {longest} tokens, which leave no room for a picture in the model's {there} positions: "
            "shorten it"
        )
    if need > there:
        raise UserError(
            f"{rounds} rounds with up to {sampling.max_reason_tokens} words each may take {need} positions, the model "
            f"has {there}: allow fewer rounds or words, or shorten the prompt"
        )
    if as_released and sources:
        raise UserError("the released code does not introspect on edits: draw them without released=True")
    if prompt_tokens and longest > prompt_tokens:
        raise UserError(f"a prompt has {longest} tokens, more than {prompt_tokens}: shorten it, or allow more")
    # in the released layout padding is attended, so there must be no more of it than there was
    prompt = longest if as_released else prompt_tokens or bucket(longest, TEXT_STEP)
    how = prompt, sources, reencode, always, on_codes
    return Drawing(model, decode.prepared(params), processor, grammar, sampling, rounds, seed, batch, *how)

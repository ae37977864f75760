"""From trajectories and their rewards to the batch of a policy-gradient step.

Credit says which tokens a reward trains:

    released/own_prompt     first picture <- its reward; verdict and reason <- 1 - |reward - verdict|; final picture <-
                            its reward, where after a Yes that is the first picture again, in its own context
    released/regen_prompt   the same, but the final picture is always scored in the context of drawing again
    released/always_second  the second picture is drawn and trained whatever the verdict
    trajectory              the paper's: one reward for the whole trajectory of up to T rounds
    improvement             first picture <- its reward; verdicts and reasons <- the mean of 1 - |reward - verdict|,
                            less 1 for a premature Yes; a later picture <- its reward less that of the one before

The first three are the three trainers of the released code (T = 2). In them and in `improvement` each segment has its
own group-relative advantage, among the trajectories that have it.

A reward that is not known is NaN. What it would train is not trained, and counts in no group's statistics.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from janus_jax.rl import advantages
from janus_jax.sequences import tokens
from janus_jax.sequences.batch import Row, collate

CREDITS = ("released/own_prompt", "released/regen_prompt", "released/always_second", "trajectory", "improvement")
FIRST, TEXT, FINAL = 0, 1, 2  # segments of the released credit
PER = {"released": "segment", "trajectory": "trajectory", "improvement": "segment"}  # see losses.pg_weights
ESTIMATORS = {"grpo": advantages.grpo, "rloo": advantages.rloo, "dr_grpo": advantages.dr_grpo}
SEGMENTS = 3


def trajectory_reward(rewards, verdicts, rounds: int) -> float:
    """The paper's R of one trajectory: rewards R_QA(I_i) and verdicts SE(I_i) of its pictures, T = rounds.

    K: the first round with a Yes, T if none. R = sum_{i<K} R_i + (T-K+1) R_K + (T/K) sum_{i<=K} (1 - |R_i - SE_i|).
    """
    rewards = np.asarray(rewards, np.float64)
    says = np.asarray(verdicts, np.float64)
    yes = np.flatnonzero(says)
    K = int(yes[0]) + 1 if len(yes) else rounds
    generation = rewards[: K - 1].sum() + (rounds - K + 1) * rewards[K - 1]
    comprehension = rounds / K * (1 - np.abs(rewards[:K] - says[:K])).sum()
    return float(generation + comprehension)


class Credited(NamedTuple):
    """What trains the segments of one batch of trajectories, rewards or advantages, f32[B] each: `first`, `text`,
    `final` (equal under `trajectory`; `final` is f32[B, T-1] under `improvement`, one per later picture). NaN where a
    segment is not to be trained."""

    first: np.ndarray
    text: np.ndarray
    final: np.ndarray


def improvement_rewards(rewards, verdicts, rounds: int) -> tuple[float, float, list[float]]:
    """(first, text, later) rewards of one trajectory under `improvement`, later: one for each of the rounds - 1
    pictures that may follow, NaN where none did. A premature Yes is one to a picture whose reward is under one half."""
    rewards, says = np.asarray(rewards, np.float64), np.asarray(verdicts, np.float64)
    premature = bool(says[-1]) and rewards[-1] < 0.5
    text = (1 - np.abs(rewards - says)).mean() - premature
    later = np.diff(rewards).tolist()
    return float(rewards[0]), float(text), later + [math.nan] * (rounds - 1 - len(later))


def segment_rewards(kind: str, trajectories, rewards, rounds: int) -> Credited:
    """The rewards that train each segment, see above. rewards: a list per trajectory, one per picture, NaN where it is
    not known. Raises ValueError for an unknown kind."""
    if kind not in CREDITS:
        raise ValueError(f"credit {kind!r} is none of {', '.join(CREDITS)}")
    says = [[shot.verdict for shot in t.rounds] for t in trajectories]
    if kind == "improvement":
        each = [improvement_rewards(r, v, rounds) for r, v in zip(rewards, says, strict=True)]
        segments = zip(*each, strict=True)
    elif kind == "trajectory":
        segments = [[trajectory_reward(r, v, rounds) for r, v in zip(rewards, says, strict=True)]] * 3
    else:
        second = kind == "released/always_second"
        final = [r[1] if second else r[0] if v[0] else r[-1] for r, v in zip(rewards, says, strict=True)]
        judged = [1 - abs(r[0] - float(v[0])) for r, v in zip(rewards, says, strict=True)]
        segments = [r[0] for r in rewards], judged, final
    return Credited(*(np.array(values, np.float32) for values in segments))


def credit(
    kind: str, trajectories, rewards, group: int, rounds: int, estimator: Callable = advantages.grpo, minimum: int = 2
) -> Credited:
    """Group-relative advantages. trajectories: B = prompts x group, a prompt's members side by side; rewards: a list of
    rewards per trajectory, one per picture, NaN where it is not known; estimator: one of ESTIMATORS; minimum: groups
    with fewer known members are left out. Raises ValueError for an unknown kind."""

    def advantage(values):
        groups = values.reshape(len(values), -1).T.reshape(-1, group)  # of later pictures each round's members
        known = np.isfinite(groups)
        known &= known.sum(-1, keepdims=True) >= minimum
        each = np.where(known, estimator(np.where(known, groups, 0), known), np.nan).astype(np.float32)
        return each.reshape(-1, len(values)).T.reshape(values.shape)

    return Credited(*map(advantage, segment_rewards(kind, trajectories, rewards, rounds)))


@dataclasses.dataclass(frozen=True)
class Layout:
    """Fixed shapes of a PG batch: positions of a painter's and of a judge's row, pictures that the judge sees,
    targets; `first`: positions of a first picture alone, for the released layout."""

    first: int
    painter: int
    judge: int
    pictures: int
    code_targets: int
    text_targets: int


def layout(kind: str, model, processor, prompt_tokens: int, rounds: int, reason_tokens: int) -> Layout:
    """Shapes that hold every trajectory with prompts of at most `prompt_tokens`."""
    think = len(processor.encode(tokens.THINK, bos=False))
    onward = len(processor.encode(tokens.NEXT, bos=False))
    codes, seen = model.cfg.vq.tokens, model.cfg.siglip.tokens
    between = think + reason_tokens + onward
    scored = 3 if kind == "released/own_prompt" else rounds  # the first picture may be trained twice
    judged = 1 if kind.startswith("released/") else rounds
    return Layout(
        first=prompt_tokens + codes,
        painter=prompt_tokens + rounds * codes + (rounds - 1) * between,
        judge=prompt_tokens + judged * (seen + think + reason_tokens) + (judged - 1) * onward,
        pictures=judged,
        code_targets=codes * scored,
        text_targets=judged * reason_tokens,
    )


def pg_batch(kind, trajectories, credited: Credited, processor, shapes: Layout, seen_tokens: int, guided: bool = True):
    """(painter's Batch, judge's Batch) of the trajectories; old_logps are the sampler's, ref_logps are left zero.

    A trajectory is one causal sequence per role, so one pass scores all its pictures, or all its words. guided: whether
    pictures were drawn under guidance; then the painter's batch has unconditional ids, too.
    """
    think = processor.encode(tokens.THINK, bos=False)
    onward = processor.encode(tokens.NEXT, bos=False)
    special = processor.special
    released = kind.startswith("released/")
    painters, judges = [], []
    for i, t in enumerate(trajectories):
        prompt = tokens.prompt_ids(processor.tokenizer, t.prompt)
        painter, judge = Row(), Row()
        painter.add_text(prompt, uncond=tokens.unconditional(prompt, special.pad))
        judge.add_text(prompt)
        # released credit trains the first verdict alone, and its final picture is the second one at most
        judged = t.rounds[:1] if released else t.rounds
        for turn, shot in enumerate(judged):
            judge.add_seen(processor.for_understanding(shot.image), seen_tokens)
            judge.add_text(think)
            extras = [
                {"advantage": credited.text[i], "old_logps": logp, "verdict": n == 0}
                for n, logp in enumerate(shot.reason_logps)
            ]
            judge.add_text(shot.reason_ids.tolist(), [TEXT] * len(extras), extras=extras)
            if turn + 1 < len(judged):
                judge.add_text(onward[1:] if shot.reason_ids[-1] == special.eos else onward)
        drawn = list(t.rounds)
        again = kind == "released/regen_prompt" and t.rounds[0].verdict
        if again:
            drawn = [t.rounds[0], t.rounds[0]]
        elif kind == "released/own_prompt" and t.rounds[0].verdict:
            drawn = [t.rounds[0]]
        for turn, shot in enumerate(drawn):
            if turn:
                said = [int(n) for n in drawn[turn - 1].reason_ids if n != special.eos]
                painter.add_text(think + said + onward)
            segment = FIRST if turn == 0 else FINAL
            later = np.atleast_1d(credited.final[i])  # one for all later pictures, or one for each
            advantage = credited.first[i] if turn == 0 else later[min(turn, len(later)) - 1]
            # the copy of a first picture was never sampled in its second context: the trainer scores it there
            logps = np.full(len(shot.codes), np.nan) if again and turn else shot.code_logps
            painter.add_codes(
                shot.codes.tolist(), segment, [{"advantage": advantage, "old_logps": logp} for logp in logps]
            )
        if kind == "released/own_prompt" and len(drawn) == 1:
            # once more the same positions, as the final picture
            painter.targets[1] += [
                (at, code, FINAL, {**extra, "advantage": credited.final[i]})
                for at, code, _, extra in painter.targets[1][: len(drawn[0].codes)]
            ]
        painters.append(painter)
        judges.append(judge)
    names = ("advantage", "old_logps", "ref_logps")
    return (
        collate(painters, shapes.painter, special.pad, code_targets=shapes.code_targets, extras=names, guided=guided),
        collate(
            judges,
            shapes.judge,
            special.pad,
            text_targets=shapes.text_targets,
            pictures=shapes.pictures,
            extras=(*names, "verdict"),
        ),
    )


def blank(shapes: Layout, rows: int, side: int, guided: bool = True):
    """The batches of `pg_batch` with nothing in them; side: pixels along one side of a picture that is seen."""
    painters, judges = ([Row() for _ in range(rows)] for _ in range(2))
    judges[0].add_seen(np.zeros((side, side, 3), np.float32), 1)
    names = ("advantage", "old_logps", "ref_logps")
    words = {"text_targets": shapes.text_targets, "pictures": shapes.pictures, "extras": (*names, "verdict")}
    return (
        collate(painters, shapes.painter, 0, code_targets=shapes.code_targets, extras=names, guided=guided),
        collate(judges, shapes.judge, 0, **words),
    )


def released_batches(kind, trajectories, credited: Credited, processor, shapes: Layout, seen_tokens: int, guided=True):
    """(first pictures', judge's, final pictures' Batch) in the released layout, to be scored with token_logps(policy=).

    Three sequences per trajectory, because their contexts differ: the second picture's holds the first one encoded
    again. Left padding up to the longest prompt is attended by the judge and by pictures drawn again; after a reason
    follow its EOS and the padding up to the longest reason, unseen; positions count every slot. EOS is not trained, the
    verdict is a word like any other, and the ratio of new to old probability is always 1.
    """
    think = processor.encode(tokens.THINK, bos=False)
    onward = processor.encode(tokens.NEXT, bos=False)
    special = processor.special
    prompts = [tokens.prompt_ids(processor.tokenizer, t.prompt) for t in trajectories]
    longest_prompt = max(map(len, prompts))
    longest_reason = max(len(t.rounds[0].reason_ids) for t in trajectories)
    firsts, judges, finals = rows = [], [], []
    for i, (t, prompt) in enumerate(zip(trajectories, prompts, strict=True)):
        shot, uncond = t.rounds[0], tokens.unconditional(prompt, special.pad)
        padding = [special.pad] * (longest_prompt - len(prompt))
        words = [int(n) for n in shot.reason_ids if n != special.eos]

        def credit_each(ids, advantages, i=i):
            return [{"advantage": advantages[i], "old_logps": np.nan}] * len(ids)

        first, judge, final = Row(), Row(), Row()
        first.add_text(prompt, uncond=uncond)
        first.add_codes(shot.codes.tolist(), FIRST, credit_each(shot.codes, credited.first))
        judge.add_text(padding + prompt)
        judge.add_seen(processor.for_understanding(shot.image), seen_tokens)
        judge.add_text(think)
        judge.add_text(words, [TEXT] * len(words), extras=credit_each(words, credited.text))
        if kind == "released/own_prompt" and shot.verdict:
            final.add_text(prompt, uncond=uncond)
        else:
            final.add_text(padding + prompt, uncond=padding + uncond)
            final.add_codes(shot.context_codes.tolist())
            final.add_text(think + words)
            final.add_hole([special.eos] * (longest_reason - len(words)))
            final.add_text(onward)
        codes = t.rounds[1 if kind == "released/always_second" or not shot.verdict else 0].codes
        final.add_codes(codes.tolist(), FINAL, credit_each(codes, credited.final))
        for row, all_rows in zip((first, judge, final), rows, strict=True):
            all_rows.append(row)
    shared = {"pad": special.pad, "extras": ("advantage", "old_logps", "ref_logps"), "by_slot": True}
    painted = {**shared, "code_targets": len(trajectories[0].rounds[0].codes), "guided": guided}
    return (
        collate(firsts, shapes.first, **painted),
        collate(judges, shapes.judge, text_targets=shapes.text_targets, pictures=1, **shared),
        collate(finals, shapes.painter, **painted),
    )

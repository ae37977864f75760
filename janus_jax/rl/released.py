"""Stage 2 as the released code has it: its three sequences per trajectory, and its log-probabilities. In the place of
batches.make and objective.make_forward, for checking against it.

The second picture's context holds the first one encoded again. Left padding up to the longest prompt is attended by the
judge and by pictures drawn again; after a reason follow its EOS and the padding up to the longest reason, unseen;
positions count every slot. EOS is not trained, the verdict is a word like any other, the ratio of new to old
probability is always 1. Codes are scored with the guided logits divided by w, words at temperature 1; contexts are
embedded by the policy, as constants.
"""

import jax
import numpy as np

from janus_jax.models.inputs import embed_batch, is_guided
from janus_jax.rl.batches import FIELDS, Layout
from janus_jax.rl.credit import FINAL, FIRST, TEXT, AfterYes, Credit
from janus_jax.sampling.density import Sampling
from janus_jax.sampling.rollout import Rollout
from janus_jax.sequences.grammar import Grammar
from janus_jax.sequences.row import Row, collate
from janus_jax.training.logps import token_logps


def make(credit: Credit, rollout: Rollout, grammar: Grammar, shapes: Layout, side: int, guided: bool = True):
    """(first pictures', judge's, final pictures' Batch); arguments as those of batches.make."""
    seen, special = rollout.seen(side), grammar.special
    prompts = [(grammar.prompt(request)[0], grammar.unconditional(request)[0]) for request in rollout.requests]
    longest_prompt = max(len(prompt) for prompt, _ in prompts)
    longest_reason = rollout.words[:, 0].max()
    firsts, judges, finals = [], [], []
    for i, (prompt, uncond) in enumerate(prompts):
        yes, padding = rollout.verdict[i, 0], [special.pad] * (longest_prompt - len(prompt))
        words = rollout.reason_ids[i, 0, : rollout.words[i, 0]]
        words = words[words != special.eos]
        first, judge, final = Row(), Row(), Row()
        first.add_text(prompt, uncond=uncond)
        _train(first, rollout.codes[i, 0], FIRST)
        judge.add_text([*padding, *prompt])
        grammar.look(judge, seen[i, 0])
        judge.add_text(words, TEXT, old_logps=np.full(len(words), np.nan))
        if yes and credit.after_yes is AfterYes.OWN_PROMPT:
            final.add_text(prompt, uncond=uncond)
        else:
            final.add_text([*padding, *prompt], uncond=[*padding, *uncond])
            final.add_codes(rollout.context_codes[i, 0])
            final.add_text(grammar.question)
            final.add_text(words)
            final.add_hole([special.eos] * (longest_reason - len(words)))
            final.add_text(grammar.transition)
        _train(final, rollout.codes[i, 1 if credit.always or not yes else 0], FINAL)
        for row, rows in zip((first, judge, final), (firsts, judges, finals), strict=True):
            rows.append(row)
    said = {"text_targets": shapes.text_targets, "fields": FIELDS[:3]}
    painted = {"code_targets": grammar.codes, "fields": FIELDS, "guided": guided}
    return tuple(
        batch._replace(positions=np.tile(np.arange(batch.ids.shape[1], dtype=np.int32), (len(rollout), 1)))
        for batch in (
            collate(firsts, shapes.first, special.pad, **painted),
            collate(judges, shapes.judge, special.pad, pictures=1, levels=True, **said),
            collate(finals, shapes.painter, special.pad, **painted),
        )
    )


def _train(row, codes, group):
    row.add_codes(codes, group, old_logps=np.full(len(codes), np.nan))


def make_forward(model, sampling: Sampling, yes_no):
    """forward(params, batches, policy=params) -> list of token_logps; policy: embeds the contexts."""
    codes = Sampling(sampling.cfg_weight, temperature=sampling.cfg_weight)

    def one(params, batch, policy):
        embeds = embed_batch(model, policy, batch, is_guided(batch))
        context = jax.lax.stop_gradient(embeds)
        return token_logps(model, params, batch, codes, yes_no, text_sampling=Sampling(), context=context)

    def forward(params, batches, policy=None):
        return [one(params, batch, params if policy is None else policy) for batch in batches]

    return forward

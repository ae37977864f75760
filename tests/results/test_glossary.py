"""Every metric of the code has its sentence; the page in docs/ is made from the table."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trajectories import made, rollout_of, table

from janus_jax import train_vq
from janus_jax.results import glossary
from janus_jax.rl import monitor
from janus_jax.rl.advantages import grpo
from janus_jax.rl.credit import CREDITS
from janus_jax.rl.rewards import Rewards
from janus_jax.sequences.batch import GROUPS
from janus_jax.training import losses


def without_entry(metrics):
    return [name for name in metrics if glossary.entry(name) is None]


def of_a_rollout():
    rollout, total = rollout_of([made(True), made(False, True)], 2), table([[1.0], [0.2, 1.0]], 2)
    credit = CREDITS["trajectory"]
    segments, credited = credit.segment_rewards(rollout, total, 2), credit.advantages(rollout, total, 2, 2, grpo)
    return monitor.describe(rollout, Rewards(total, {"match": total, "style": total}, total), segments, credited, 2)


def of_the_loss():
    rows = [jnp.zeros((2, 3))] * 5
    return jax.eval_shape(lambda: losses.pg_loss(*rows, beta=0.1, clip_low=0.2, clip_high=0.2)[1])


def of_the_tokenizer():
    z = jnp.ones((2, 3, 3, 4))
    outputs = {"pixels": jnp.ones((2, 6, 6, 3)), "z": z, "zq": z, "codes": jnp.zeros((2, 9), int)}
    outputs["similarity"] = jnp.ones((18, 5))
    loss = train_vq.make_loss(True, 0.25, 0.1, 0.1)
    return jax.eval_shape(lambda: loss(outputs, jnp.zeros((2, 6, 6, 3)))[1])


@pytest.mark.parametrize(
    "metrics",
    [
        of_a_rollout,
        of_the_loss,
        of_the_tokenizer,
        lambda: GROUPS,  # training/sft.py
        lambda: (
            "loss",
            "grad_norm",
            "update_norm",
            "skipped",
            "padding",
            "steps_per_second",
        ),  # training/step.py, loop.py
        lambda: ("value_loss", "entropy_codes", "entropy_text", "max_logp_gap", "lost"),  # rl/objective.py
        lambda: ("tokens_per_second", "groups_drawn"),  # rl/learning.py
        lambda: ("draw_right_first", "edit_agreement"),  # monitor.by_task
        lambda: ("retention", "retention_counting", "retention_questions"),  # rl/retention.py
        lambda: (f"seconds_{phase}" for phase in ("draw", "judge", "rows", "reference", "old", "credit", "train")),
    ],
    ids=["rollout", "policy", "tokenizer", "sft", "step", "objective", "learning", "tasks", "retention", "seconds"],
)
def test_each_has_an_entry(metrics):
    missing = without_entry(metrics())
    assert not missing, f"results/glossary.py: add an entry for {', '.join(missing)}; then python docs/make.py"


def test_entries():
    assert glossary.entry("nonsense") is None
    topic, panel, said = glossary.entry("score_style")
    assert (topic, panel) == ("Pictures", "scores of the judge") and said.endswith(".")
    sentences = [said for panels in glossary.TOPICS.values() for names in panels.values() for said in names.values()]
    assert all(said[0].isupper() and said.endswith(".") for said in sentences)


def test_groups_are_in_the_table_s_order():
    found = glossary.grouped(["mine", "kl", "right_final", "right_first", "score_b"])
    assert list(found) == ["Pictures", "Loss and policy", "Others"]
    assert found["Pictures"] == {"right pictures": ["right_first", "right_final"], "scores of the judge": ["score_b"]}
    assert found["Others"] == {"mine": ["mine"]}


def test_segments_and_their_order():
    names = [name for name in of_a_rollout() if name.startswith("trained_")]
    assert names == ["trained_first", "trained_text", "trained_final"] and np.isfinite(of_a_rollout()[names[0]])

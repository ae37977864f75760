"""What each metric of a training means: one table, which the report and docs/metrics.md are made from.

TOPICS: topic -> panel -> metric -> a sentence. Metrics of one panel are drawn together; NAME stands for a name, of a
score that the judge gives, or of a category. tests/results/test_glossary.py says which metric of the code has no entry.
"""

import re

TOPICS = {
    "Pictures": {
        "right pictures": {
            "right_first": "Share of first pictures that the judge scores 0.5 or more.",
            "right_final": "The same of the pictures that the model chose: the first it said Yes to, else the last.",
        },
        "reward": {
            "reward_first": "Mean reward of the first pictures.",
            "reward_final": "Mean reward of the chosen pictures.",
        },
        "repair and spoil rate": {
            "repair_rate": "Share of wrong first pictures whose chosen picture is right.",
            "spoil_rate": "Share of right first pictures whose chosen picture is wrong.",
        },
        "scores of the judge": {
            "score_NAME": "Mean of the judge's score of that name over chosen pictures, where there are several scores."
        },
        "spread of the scores": {
            "spread_score_NAME": "Mean standard deviation of that score within a group: what there is to compare.",
        },
        "scores alike": {
            "alike_score_NAME": "Share of groups whose members all have the same score of that name: it teaches them "
            "nothing.",
        },
        "missing rewards": {
            "failed": "Share of pictures without a reward, because the judge gave none.",
        },
        "diversity": {
            "diversity": "Share of codes in which two first pictures of one prompt differ; near 0 the policy has "
            "collapsed.",
        },
    },
    "Verdicts and reasons": {
        "says Yes": {
            "yes_rate": "Share of pictures to which the model says Yes; near 1 its judge has given up.",
            "yes_of_right": "The same of pictures that the judge calls right.",
            "yes_of_wrong": "The same of pictures that the judge calls wrong.",
        },
        "verdict and judge": {
            "agreement": "Share of pictures whose verdict is the judge's.",
            "calibration_error": "Expected calibration error of P(yes) against the judge, in ten bins; 0 is best.",
            "retention": "Balanced accuracy of the verdicts on a fixed set of labelled pictures; 0.5 is chance.",
        },
        "retention by category": {
            "retention_NAME": "Retention of one category of the embedded world's prompts.",
        },
        "answers": {
            "retention_questions": "Share of held-out questions about the embedded world's pictures that is answered "
            "right.",
        },
        "rounds": {"rounds": "Pictures per trajectory."},
        "length of reasons": {"reason_length": "Tokens of a verdict with its reason."},
    },
    "What is learnt from": {
        "spread of the reward within a group": {
            "spread_first": "Mean standard deviation of the first pictures' reward within a group.",
            "spread_final": "The same of the chosen pictures.",
        },
        "what trains, by segment": {
            "trained_first": "Mean reward assigned to first pictures' codes by `credit`, before it is compared within "
            "the group.",
            "trained_text": "The same of verdicts and reasons.",
            "trained_final": "The same of later pictures' codes.",
        },
        "its spread within a group": {
            "spread_trained_first": "Mean standard deviation of trained_first within a group.",
            "spread_trained_text": "The same of trained_text.",
            "spread_trained_final": "The same of trained_final.",
        },
        "groups that teach nothing": {
            "idle_first": "Share of groups whose first pictures all have the same reward, so that no code is trained.",
            "idle_text": "The same of verdicts and reasons.",
            "idle_final": "The same of later pictures.",
        },
        "groups left out": {
            "dropped_first": "Share of groups without an advantage of first pictures: too few known rewards.",
            "dropped_text": "The same of verdicts and reasons.",
            "dropped_final": "The same of later pictures; also where no trajectory has any.",
        },
        "groups drawn": {"groups_drawn": "Groups that were drawn for the step, with those that redraws replaced."},
    },
    "Loss and policy": {
        "loss": {
            "loss": "What the step minimises.",
            "policy_loss": "Its policy term: the clipped surrogate, negative.",
            "value_loss": "Half the squared error of the value head (PPO).",
        },
        "KL to the reference": {"kl": "Mean k3 estimate of the KL divergence from the reference, in nats per token."},
        "probability ratio": {
            "ratio": "Mean ratio of the policy's probability of a token to that of the policy that drew it.",
        },
        "clipped tokens": {"clip_fraction": "Share of tokens whose ratio the clip holds back."},
        "entropy": {
            "entropy_codes": "Mean entropy of the density that codes are drawn from, in nats per token.",
            "entropy_text": "The same of words.",
        },
        "sampler and trainer": {
            "max_logp_gap": "Largest difference of a token's log-probability between sampler and trainer; 0 is best.",
        },
        "lost tokens": {"lost": "Weight of drawn tokens that truncated sampling can draw no more."},
    },
    "Losses of stage 1": {
        "losses by task": {
            "draw": "Negative log-likelihood of the codes of right pictures, in its share of the loss.",
            "verdict": "The same of Yes and No.",
            "reason": "The same of reasons.",
            "redraw": "The same of the codes of a picture drawn again.",
            "describe": "The same of descriptions.",
            "edit": "The same of the codes of edited pictures.",
        },
    },
    "Picture tokenizer": {
        "reconstruction": {"reconstruction": "Squared error of the pixels, heavier where a picture has contrast."},
        "commitment": {"commitment": "Squared distance of the unit latents from their codes."},
        "codes": {
            "codes_used": "Different codes in the batch.",
            "perplexity": "Exponential of the entropy of the codes' use: as if so many were used equally.",
        },
    },
    "Optimizer": {
        "gradient": {"grad_norm": "Norm of the gradient before it is clipped."},
        "update": {"update_norm": "Norm of the change of the parameters."},
        "skipped updates": {"skipped": "Share of the step's updates that were not finite, and not taken."},
    },
    "Time": {
        "seconds": {
            "seconds_draw": "Seconds of a step spent on drawing, looking and speaking.",
            "seconds_judge": "Seconds of waiting for the judge.",
            "seconds_rows": "Seconds of writing the batch and putting it on the devices.",
            "seconds_reference": "Seconds of log-probabilities under the reference.",
            "seconds_old": "Seconds of those under the policy that drew, where the sampler's will not do.",
            "seconds_credit": "Seconds of the way from rewards to advantages.",
            "seconds_train": "Seconds of the updates.",
        },
        "tokens per second": {"tokens_per_second": "Codes and words drawn per second of the whole step."},
        "padding": {"padding": "Share of a step's positions that hold no token."},
        "steps per second": {"steps_per_second": "Steps per second since the last line."},
    },
}

ALONE = "(?:(?:draw|edit)_)?"  # before the name: where a step has both tasks, of this one alone


def _patterns():
    for topic, panels in TOPICS.items():
        for panel, metrics in panels.items():
            for name, sentence in metrics.items():
                yield re.compile(ALONE + re.escape(name).replace("NAME", r".+")), name, topic, panel, sentence


def entry(metric: str) -> tuple[str, str, str] | None:
    """(topic, panel, sentence) of a metric; None where the table has none. A name that stands in the table as it is
    goes before one with a NAME in it."""
    found = [entry for entry in _patterns() if entry[0].fullmatch(metric)]
    found.sort(key=lambda each: (each[1] != metric, -len(each[1])))
    return found[0][2:] if found else None


def grouped(metrics) -> dict[str, dict[str, list[str]]]:
    """topic -> panel -> those of the metrics that are drawn in it, in the table's order; what the table does not have
    comes last, under "Others", a panel each."""
    groups = {topic: {panel: [] for panel in panels} for topic, panels in TOPICS.items()} | {"Others": {}}
    order = [pattern for pattern, *_ in _patterns()]
    place = {name: next((i for i, each in enumerate(order) if each.fullmatch(name)), len(order)) for name in metrics}
    for name in sorted(metrics, key=place.get):
        topic, panel, _ = entry(name) or ("Others", name, "")
        groups[topic].setdefault(panel, []).append(name)
    kept = {topic: {panel: names for panel, names in panels.items() if names} for topic, panels in groups.items()}
    return {topic: panels for topic, panels in kept.items() if panels}


def markdown() -> str:
    """The table as Markdown: docs/metrics.md."""
    parts = [
        "# Metrics\n",
        "What a training writes into `metrics.jsonl`, to its writers and into `report.html`. Made by",
        "`python docs/make.py` from `janus_jax/results/glossary.py`, which the report reads, too.\n",
        "A metric that has no value in a step is NaN: `null` in the file, a gap in a curve. The judge is whoever gives",
        "the reward; *right* means a reward of 0.5 or more. In a step of both tasks `draw_NAME` and `edit_NAME` are",
        "those of one task's pictures alone.\n",
    ]
    for topic, panels in TOPICS.items():
        parts += [f"## {topic}\n", "| metric | |", "|---|---|"]
        parts += [f"| `{name}` | {said} |" for metrics in panels.values() for name, said in metrics.items()]
        parts.append("")
    return "\n".join(parts)

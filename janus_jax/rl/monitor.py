"""What a batch of trajectories shows: scalars for the metrics of stage 2 (numpy).

Truth is the judge's: a picture is right where `Rewards.truth` is at least one half. Pictures whose reward is NaN are
known in no figure but `failed`.
"""

import re

import numpy as np

from janus_jax.rl.credit import by_segment
from janus_jax.rl.rewards import Rewards
from janus_jax.sampling.rollout import Rollout

BINS = 10  # of P(yes), for the calibration error


def calibration_error(probability, truth, bins: int = BINS) -> float:
    """Expected calibration error of probabilities f[N] of truths bool[N]: the mean over equal bins of |share that is
    true - mean probability|, each bin by its number of members (Guo et al. 2017, arXiv 1706.04599, section 3). NaN for
    no members."""
    probability, truth = np.asarray(probability, np.float64), np.asarray(truth, np.float64)
    if not len(probability):
        return float("nan")
    place = np.minimum((probability * bins).astype(int), bins - 1)
    gap = np.bincount(place, weights=truth - probability, minlength=bins)
    return float(np.abs(gap).sum() / len(probability))


def diversity(codes) -> float:
    """Of the pairs of pictures of one group, codes i32[..., G, I], the mean share of places whose codes differ. NaN for
    groups of one."""
    codes = np.asarray(codes)
    G = codes.shape[-2]
    if G == 1:
        return float("nan")
    differ = (codes[..., :, None, :] != codes[..., None, :, :]).mean(-1)  # zero with itself
    return float(differ.sum((-2, -1)).mean() / (G * (G - 1)))


def spread(values, group: int) -> float:
    """Mean over groups of the standard deviation of their known values f[B]; a group's members lie side by side."""
    groups = np.asarray(values, np.float64).reshape(-1, group)
    known = [g[np.isfinite(g)] for g in groups]
    return _mean([g.std() for g in known if len(g)])


def alike(values, group: int) -> float:
    """Share of the groups with two or more known values f[B] in which all of these are the same: they teach nothing. A
    group's members lie side by side."""
    groups = np.asarray(values, np.float64).reshape(-1, group)
    known = [g[np.isfinite(g)] for g in groups]
    return _mean([np.ptp(g) < 1e-6 for g in known if len(g) > 1])


def dropped(advantage, group: int) -> float:
    """Share of groups that were left out, for want of known rewards or because none has the segment: whose advantages
    f[B, ...] are all NaN."""
    return float(np.isnan(np.asarray(advantage, np.float64)).reshape(len(advantage) // group, -1).all(-1).mean())


def idle_groups(advantage, group: int) -> np.ndarray:
    """bool[groups]: those that teach nothing, whose advantages f[B, columns] are all zero or NaN."""
    groups = np.nan_to_num(np.asarray(advantage, np.float64)).reshape(len(advantage) // group, -1)
    return (np.abs(groups) < 1e-6).all(-1)


def describe(rollout: Rollout, rewards: Rewards, segments, credited, group: int) -> dict:
    """Scalars of one rollout. segments, credited: the rewards that train and the advantages that came of them,
    f32[B,columns] each; a group's trajectories lie side by side. "trained_NAME" is what the loss raises, by segment,
    with its spread within groups; "score_NAME" a judge's score of the chosen pictures, where there are several, with
    its spread and the share of groups whose members all have the same."""
    rows, total = np.arange(len(rollout)), rewards.total.astype(np.float64)
    first, final = total[:, 0], total[rows, rollout.final]
    codes = rollout.codes[:, 0].reshape(-1, group, rollout.codes.shape[-1])
    advantages, trained = by_segment(credited), by_segment(segments)
    scores = {} if len(rewards.scores) < 2 else rewards.scores
    scores = {name: values[rows, rollout.final] for name, values in scores.items()}
    return {
        "reward_first": _known_mean(first),
        "reward_final": _known_mean(final),
        "spread_first": spread(first, group),
        "spread_final": spread(final, group),
        **_judged(rollout, rewards.truth),
        "rounds": _mean(rollout.rounds),
        "reason_length": _mean(rollout.words[rollout.live]),
        "diversity": diversity(codes),
        **{f"idle_{name}": _mean(idle_groups(values, group)) for name, values in advantages.items()},
        **{f"dropped_{name}": dropped(values, group) for name, values in advantages.items()},
        **{f"trained_{name}": _known_mean(values) for name, values in trained.items()},
        **{f"spread_trained_{name}": spread(values.T, group) for name, values in trained.items()},
        **{f"score_{name}": _known_mean(values) for name, values in scores.items()},
        **{f"spread_score_{name}": spread(values, group) for name, values in scores.items()},
        **{f"alike_score_{name}": alike(values, group) for name, values in scores.items()},
        "failed": 1 - _mean(np.isfinite(total[rollout.live])),
    }


def _judged(rollout, truth) -> dict:
    """The figures of right pictures and of verdicts. truth: f32[B,R]."""
    rows, truth = np.arange(len(rollout)), truth.astype(np.float64)
    first, final = truth[:, 0], truth[rows, rollout.final]
    live, every = rollout.live, truth[rollout.live]
    known = np.isfinite(every)
    said, p_yes, right = rollout.verdict[live][known], rollout.p_yes[live][known], every[known] >= 0.5
    both = np.isfinite(first) & np.isfinite(final)
    was, became = first[both] >= 0.5, final[both] >= 0.5
    return {
        "right_first": _mean(was),
        "right_final": _mean(became),
        "repair_rate": _mean(became[~was]),
        "spoil_rate": _mean(~became[was]),
        "yes_rate": _mean(said),
        "agreement": _mean(said == right),
        "yes_of_right": _mean(said[right]),
        "yes_of_wrong": _mean(said[~right]),
        "calibration_error": calibration_error(p_yes, right),
    }


def by_task(rollout: Rollout, rewards: Rewards) -> dict:
    """The figures of right pictures and of verdicts of each task alone, "draw_NAME" and "edit_NAME", where a rollout
    has both."""
    tasks = rollout.tasks
    if len(tasks) < 2:
        return {}
    parts = {task: _judged(rollout.take(rows), rewards.truth[rows]) for task, rows in tasks.items()}
    return {f"{task}_{name}": value for task, part in parts.items() for name, value in part.items()}


WHY = (
    (r"repair_rate", "no first picture was wrong"),
    (r"spoil_rate", "no first picture was right"),
    (r"yes_of_right", "no picture was right"),
    (r"yes_of_wrong", "no picture was wrong"),
    (r"diversity", "groups have one member"),
    (r"max_logp_gap", "the released layout keeps no log-probs of the sampler"),
    (r"retention", "the labelled pictures are all right, or all wrong"),
    (r"trained_.*|spread_trained_.*|idle_.*|dropped_.*", "no trajectory has such a segment"),
    (r".*", "no picture has its reward"),
)


def why(name: str) -> str:
    """Why a metric has no value."""
    return next(reason for pattern, reason in WHY if re.fullmatch(pattern, name))


def telling(rollout: Rollout, rewards: Rewards, count: int = 4) -> list[int]:
    """The trajectories that tell most, `count` of each kind, none twice: those whose last picture is most better than
    the first or most worse, then the best and the worst by the chosen picture's truth. Unknown ones are left out."""
    rows, truth = np.arange(len(rollout)), rewards.truth
    known = np.isfinite(np.where(rollout.live, truth, 0)).all(1)
    change = np.abs(truth[rows, rollout.rounds - 1] - truth[:, 0])
    chosen = truth[rows, rollout.final]
    picked = []
    for order, keep in ((-change, change > 0), (-chosen, chosen >= 0.5), (chosen, chosen < 0.5)):
        some = [int(i) for i in np.argsort(order, kind="stable") if known[i] and keep[i] and i not in picked]
        picked += some[:count]
    return picked or list(range(min(count, len(rollout))))


def sampled_tokens(rollout: Rollout) -> int:
    """Codes and words that were drawn."""
    return int(rollout.live.sum() * rollout.codes.shape[-1] + rollout.words[rollout.live].sum())


def _known_mean(values) -> float:
    values = np.asarray(values)
    return _mean(values[np.isfinite(values)])


def _mean(values) -> float:
    """NaN of nothing, without numpy's warning."""
    return float(np.mean(values)) if len(values) else float("nan")

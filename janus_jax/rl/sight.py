"""What a batch of trajectories shows: scalars for the metrics of stage 2 (numpy).

Truth is the judge's: a picture is right where its reward is at least one half. Pictures whose reward is NaN are known
in no figure but `failed`.
"""

import numpy as np

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
    """Of the pairs of pictures of one group, codes i32[..., G, I], the mean share of places whose codes differ."""
    codes = np.asarray(codes)
    G = codes.shape[-2]
    differ = (codes[..., :, None, :] != codes[..., None, :, :]).mean(-1)  # zero with itself
    return float(differ.sum((-2, -1)).mean() / (G * (G - 1)))


def spread(values, group: int) -> float:
    """Mean over groups of the standard deviation of their known values f[B]; a group's members lie side by side."""
    groups = np.asarray(values, np.float64).reshape(-1, group)
    known = [g[np.isfinite(g)] for g in groups]
    return _mean([g.std() for g in known if len(g)])


def idle(advantage, group: int) -> float:
    """Share of groups that teach nothing: whose advantages f[B, ...] are all zero or NaN."""
    groups = np.nan_to_num(np.asarray(advantage, np.float64)).reshape(len(advantage) // group, -1)
    return float((np.abs(groups) < 1e-6).all(-1).mean())


def dropped(advantage, group: int) -> float:
    """Share of groups that were left out, for want of known rewards or because none has the segment: whose advantages
    f[B, ...] are all NaN."""
    return float(np.isnan(np.asarray(advantage, np.float64)).reshape(len(advantage) // group, -1).all(-1).mean())


def describe(trajectories, rewards, segments, credited, group: int) -> dict:
    """Scalars of one rollout. rewards: a list per trajectory, one per picture, NaN where it failed; segments, credited:
    the rollout.Credited of the rewards that train and of the advantages that came of them; a group's trajectories lie
    side by side. "trained_NAME" is what the loss raises, by segment, with its spread within groups."""
    rewards = [np.asarray(r, np.float64) for r in rewards]
    first = np.array([r[0] for r in rewards])
    final = np.array([r[t.final] for t, r in zip(trajectories, rewards, strict=True)])
    every = np.concatenate(rewards)
    known = np.isfinite(every)
    shots = [shot for t in trajectories for shot in t.rounds]
    said, p_yes = (np.array([getattr(shot, name) for shot in shots])[known] for name in ("verdict", "p_yes"))
    truth = every[known] >= 0.5
    both = np.isfinite(first) & np.isfinite(final)
    was, became = first[both] >= 0.5, final[both] >= 0.5
    codes = np.stack([t.rounds[0].codes for t in trajectories]).reshape(-1, group, len(trajectories[0].rounds[0].codes))
    return {
        "reward_first": _mean(first[np.isfinite(first)]),
        "reward_final": _mean(final[np.isfinite(final)]),
        "spread_first": spread(first, group),
        "spread_final": spread(final, group),
        "right_first": _mean(was),
        "right_final": _mean(became),
        "repair_rate": _mean(became[~was]),
        "spoil_rate": _mean(~became[was]),
        "yes_rate": _mean(said),
        "agreement": _mean(said == truth),
        "yes_of_right": _mean(said[truth]),
        "yes_of_wrong": _mean(said[~truth]),
        "calibration_error": calibration_error(p_yes, truth),
        "rounds": _mean([len(t.rounds) for t in trajectories]),
        "reason_length": _mean([len(shot.reason_ids) for shot in shots]),
        "diversity": diversity(codes),
        **{f"idle_{name}": idle(values, group) for name, values in credited._asdict().items()},
        **{f"dropped_{name}": dropped(values, group) for name, values in credited._asdict().items()},
        **{f"trained_{name}": _known_mean(values) for name, values in segments._asdict().items()},
        **{
            f"spread_trained_{name}": spread(values.reshape(len(values), -1).T, group)
            for name, values in segments._asdict().items()
        },
        "failed": 1 - _mean(known),
    }


def telling(trajectories, rewards, count: int = 4) -> list:
    """The trajectories that tell most, `count` of each, none twice: those whose last picture is most better than the
    first or most worse, then the best and the worst by the chosen picture's reward. Unknown rewards are left out."""
    rows = [(t, r) for t, r in zip(trajectories, rewards, strict=True) if np.isfinite(r).all()]
    change = np.array([abs(r[-1] - r[0]) for _, r in rows])
    chosen = np.array([r[t.final] for t, r in rows])
    picked = []
    for order, keep in ((-change, change > 0), (-chosen, chosen >= 0.5), (chosen, chosen < 0.5)):
        some = [i for i in np.argsort(order, kind="stable") if keep[i] and i not in picked]
        picked += some[:count]
    return [rows[i][0] for i in picked] or list(trajectories[:count])


def sampled_tokens(trajectories) -> int:
    """Codes and words that were drawn."""
    return sum(len(shot.codes) + len(shot.reason_ids) for t in trajectories for shot in t.rounds)


def _known_mean(values) -> float:
    return _mean(values[np.isfinite(values)])


def _mean(values) -> float:
    """NaN of nothing, without numpy's warning."""
    return float(np.mean(values)) if len(values) else float("nan")

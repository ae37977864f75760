"""Scores of trajectories against the verifier, with standard errors clustered by prompt (numpy)."""

import numpy as np


def clustered(values, clusters):
    """(mean, standard error) of values f[N], where values of one cluster (prompt) are not independent.

    The sandwich estimator of a mean: sqrt(sum over clusters of (sum of residuals)^2) / N, with the C/(C-1)
    correction (Liang and Zeger 1986). NaN error for fewer than two clusters; (nan, nan) for no values.
    """
    values, clusters = np.asarray(values, np.float64), np.asarray(clusters)
    if not len(values):
        return float("nan"), float("nan")
    mean = values.mean()
    _, index = np.unique(clusters, return_inverse=True)
    sums = np.bincount(index, weights=values - mean)
    count = len(sums)
    if count < 2:
        return float(mean), float("nan")
    return float(mean), float(np.sqrt((sums**2).sum() * count / (count - 1)) / len(values))


def rates(prompts, categories, right, verdicts, finals) -> dict:
    """The figures of an evaluation.

    One entry per trajectory: its prompt (or another cluster that its error is to be taken over) and category; right,
    verdicts: lists of bools over its judged pictures; finals: index of the chosen picture. Returns a dict of (mean,
    standard error) pairs: "first", "final", "gain" (paired: final - first), "repair" (wrong first pictures made right),
    "spoil" (right ones made wrong), "agreement" (verdict = verifier over all judged pictures), "agreement_balanced"
    (mean of the agreement over right and over wrong pictures), "rounds", and "categories": {name: {"first", "final",
    "yes_of_wrong" (wrong pictures, of any round, that the verdict is Yes to)}}.
    """
    prompts, categories = np.array(prompts), np.array(categories)
    first = np.array([float(r[0]) for r in right])
    final = np.array([float(r[f]) for r, f in zip(right, finals, strict=True)])
    owner = np.repeat(prompts, [len(r) for r in right])
    truth = np.concatenate([np.asarray(r, bool) for r in right])
    said = np.concatenate([np.asarray(v, bool) for v in verdicts])
    agree, kind = (truth == said).astype(float), np.repeat(categories, [len(r) for r in right])
    on_right, on_wrong = (clustered(agree[truth == side], owner[truth == side]) for side in (True, False))
    return {
        "first": clustered(first, prompts),
        "final": clustered(final, prompts),
        "gain": clustered(final - first, prompts),
        "repair": clustered(final[first == 0], prompts[first == 0]),
        "spoil": clustered(1 - final[first == 1], prompts[first == 1]),
        "agreement": clustered(agree, owner),
        "agreement_balanced": (
            (on_right[0] + on_wrong[0]) / 2,
            float(np.hypot(on_right[1], on_wrong[1]) / 2),
        ),
        "rounds": clustered(np.array([len(r) for r in right], float), prompts),
        "categories": {
            str(name): {
                "first": clustered(first[categories == name], prompts[categories == name]),
                "final": clustered(final[categories == name], prompts[categories == name]),
                "yes_of_wrong": clustered(said[~truth & (kind == name)], owner[~truth & (kind == name)]),
            }
            for name in dict.fromkeys(categories.tolist())
        },
    }

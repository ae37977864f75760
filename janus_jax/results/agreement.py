"""How well probabilities of Yes agree with labels: accuracy, confusion, calibration, the best threshold (numpy).

p_yes f[N] in [0, 1], right bool[N]: the labels. Yes is said where P(yes) is at least a threshold.
"""

import dataclasses

import numpy as np

from janus_jax.results.scores import clustered

BINS = 10  # of P(yes), all of one width


def confusion(p_yes, right, threshold: float = 0.5) -> dict[str, dict[str, int]]:
    """{label: {answer: how many}}, the labels "right" and "wrong", the answers "yes" and "no"."""
    said, right = np.asarray(p_yes) >= threshold, np.asarray(right, bool)
    return {
        label: {answer: int((of & word).sum()) for answer, word in (("yes", said), ("no", ~said))}
        for label, of in (("right", right), ("wrong", ~right))
    }


def accuracy(p_yes, right, clusters, threshold: float = 0.5) -> tuple[float, float]:
    """(share of answers that are the label's, its standard error); clusters [N]: see scores.clustered."""
    agree = (np.asarray(p_yes) >= threshold) == np.asarray(right, bool)
    return clustered(agree, clusters)


def balanced_accuracy(p_yes, right, clusters, threshold: float = 0.5) -> tuple[float, float]:
    """(mean of the accuracy over right and over wrong pictures, its standard error): 0.5 by chance, however many there
    are of each (Brodersen et al. 2010, "The balanced accuracy and its posterior distribution"). The error is that of
    `clustered` for the mean of agreements weighted by 1 / (2 x how many have that label): answers to one prompt are not
    independent, whatever their labels. NaN where one label is missing."""
    right = np.asarray(right, bool)
    if right.all() or not right.any():
        return float("nan"), float("nan")
    agree = ((np.asarray(p_yes) >= threshold) == right).astype(np.float64)
    of_label = {label: agree[right == label].mean() for label in (True, False)}
    weight = np.where(right, 0.5 / right.sum(), 0.5 / (~right).sum())
    residual = weight * (agree - np.where(right, of_label[True], of_label[False]))
    _, error = clustered(residual * len(right), clusters)
    return float(np.mean(list(of_label.values()))), error


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Answers by P(yes): bin i of B reaches from i / B up to (i + 1) / B, the last one's end included. count i[B];
    p_yes, right f[B]: mean P(yes) and share of right pictures of each bin, NaN where it is empty."""

    count: np.ndarray
    p_yes: np.ndarray
    right: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: the mean over bins, by their counts, of |share right - mean P(yes)| (Naeini et
        al. 2015, "Obtaining Well Calibrated Probabilities Using Bayesian Binning"); NaN of nothing."""
        filled = self.count > 0
        if not filled.any():
            return float("nan")
        return float(np.average(np.abs(self.right - self.p_yes)[filled], weights=self.count[filled]))


def reliability(p_yes, right, bins: int = BINS) -> Reliability:
    """The reliability curve of P(yes) (Niculescu-Mizil and Caruana 2005, "Predicting good probabilities with
    supervised learning")."""
    p_yes, right = np.asarray(p_yes, np.float64), np.asarray(right, np.float64)
    place = np.minimum((p_yes * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, weights=values, minlength=bins) / count for values in (p_yes, right)]
    return Reliability(count, *means)


def best_threshold(p_yes, right) -> float:
    """The threshold with the highest balanced accuracy, which is where Youden's J is highest (Youden 1950, "Index for
    rating diagnostic tests"). It lies in the middle between two neighbouring P(yes); of several equally good ones it is
    that nearest to 0.5. Raises ValueError where one label is missing."""
    p_yes, right = np.asarray(p_yes, np.float64), np.asarray(right, bool)
    if right.all() or not right.any():
        raise ValueError("a threshold needs pictures of both labels")
    values, place = np.unique(p_yes, return_inverse=True)
    middles = (values[1:] + values[:-1]) / 2
    thresholds = np.concatenate([[0.0], middles])  # 0: Yes to all; No to all is as good as that
    # of each label, how many lie below the i-th distinct value
    below = [np.concatenate([[0], np.cumsum(np.bincount(place[of], minlength=len(values)))]) for of in (right, ~right)]
    missed, refused = (counts[: len(values)] / counts[-1] for counts in below)
    balanced = (1 - missed + refused) / 2
    best = np.flatnonzero(balanced >= balanced.max() - 1e-12)
    return float(thresholds[best[np.argmin(np.abs(thresholds[best] - 0.5))]])

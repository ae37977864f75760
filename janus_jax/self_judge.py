"""The model itself as the judge of its pictures: a frozen copy, whose P(yes) is the reward."""

from janus_jax.rewards.judged import Judge, Judged
from janus_jax.understand import yes_probabilities


def make_judge(model, params, processor, batch: int) -> Judge:
    """A judge by the parameters given, which lie where they lie: the reward is computed on their mesh. batch: pictures
    at a time. None of its rewards is ever missing."""

    def judge(prompts, images) -> Judged:
        return Judged(yes_probabilities(model, params, processor, images, prompts, batch), ("",) * len(prompts))

    return judge

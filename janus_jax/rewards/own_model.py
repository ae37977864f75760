"""The model itself as the judge of its pictures: a frozen copy, whose P(yes) is the reward."""

import numpy as np

from janus_jax.rewards.judge import Judged
from janus_jax.sampling.answer import yes_probabilities


class SelfJudge:
    """A Judge by the parameters given, where they lie. `look` computes the rewards on their mesh, all processes of a
    pod together; called, in any thread and by each process for its own pictures, it says what was found. None of its
    rewards is ever missing."""

    def __init__(self, model, params, processor, batch: int):
        """batch: pictures at a time."""
        self._given = model, params, processor
        self._batch = batch
        self._found = {}

    def look(self, trajectories) -> None:
        """Judges the pictures of trajectories, and forgets those before. All processes call it with the same."""
        shots = [(shot.image, t.prompt) for t in trajectories for shot in t.rounds]
        pictures, prompts = zip(*shots, strict=True)
        p_yes = yes_probabilities(*self._given, pictures, prompts, self._batch)
        # by identity, of pictures that are kept: another one cannot have theirs
        self._found = {id(image): (p, image) for image, p in zip(pictures, p_yes, strict=True)}

    def __call__(self, prompts, images) -> Judged:
        """The rewards of pictures that `look` saw last. Raises KeyError for another one."""
        return Judged(np.array([self._found[id(image)][0] for image in images], np.float32), ("",) * len(prompts))

"""The model itself as the judge of its pictures: a frozen copy, or another checkpoint, whose P(yes) is the reward.

Of an edit it is asked one question, as it was taught to judge them: whether the picture, seen beside its source, is
what the instruction asks for. That is the score "whole"; the model has no words for "following" and "preserving" alone.
"""

from janus_jax.checkpoints import loading
from janus_jax.rewards.judge import MATCH, WHOLE, Judged, are_edits
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

    @classmethod
    def of_checkpoint(cls, path, mesh, batch: int) -> "SelfJudge":
        """By the model of a checkpoint, on the mesh."""
        return cls(*loading.load(path, mesh=mesh), batch)

    def look(self, requests, pictures) -> None:
        """Judges N pictures, of prompts and of edits, and forgets those before. All processes call it with the
        same."""
        p_yes = yes_probabilities(*self._given, pictures, requests, self._batch)
        # by identity, of pictures that are kept: another one cannot have theirs
        self._found = {id(picture): (p, picture) for picture, p in zip(pictures, p_yes, strict=True)}

    def __call__(self, requests, pictures) -> Judged:
        """The rewards of pictures that `look` saw last. Raises KeyError for another one."""
        name = WHOLE if are_edits(requests) else MATCH
        return Judged({name: [self._found[id(picture)][0] for picture in pictures]})

"""The model itself as the judge of its pictures: a frozen copy, or another checkpoint, whose P(yes) is the reward."""

from janus_jax.checkpoints import loading
from janus_jax.errors import UserError
from janus_jax.rewards.judge import MATCH, Judged, are_edits
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
        """Judges N pictures, and forgets those before. All processes call it with the same. Raises UserError where
        they are edits, which the model was not taught to judge."""
        if are_edits(requests):
            raise UserError("the model does not judge edits: set --config.reward.kind to another judge")
        prompts = [request.prompt for request in requests]
        p_yes = yes_probabilities(*self._given, pictures, prompts, self._batch)
        # by identity, of pictures that are kept: another one cannot have theirs
        self._found = {id(picture): (p, picture) for picture, p in zip(pictures, p_yes, strict=True)}

    def __call__(self, requests, pictures) -> Judged:
        """The rewards of pictures that `look` saw last. Raises KeyError for another one."""
        return Judged({MATCH: [self._found[id(picture)][0] for picture in pictures]})

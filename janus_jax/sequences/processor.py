"""The processor of a checkpoint: its tokenizer, the templates, and the two picture preprocessings."""

import dataclasses
from collections.abc import Mapping

from janus_jax.sequences import images, tokens


@dataclasses.dataclass(frozen=True)
class Processor:
    """tokenizer: text <-> ids; sizes are the sides in pixels that the judge (SigLIP) and the painter (VQ) see;
    drawn_with: the fields of Sampling that the checkpoint asks for; system: the sentence that opens the prompt of a
    question, or ""."""

    tokenizer: tokens.Tokenizer
    understanding_size: int
    generation_size: int
    drawn_with: Mapping[str, float] = dataclasses.field(default_factory=dict, compare=False)
    system: str = tokens.SYSTEM_PROMPT

    @property
    def special(self) -> tokens.SpecialIds:
        return self.tokenizer.special

    def generation_prompt(self, text: str) -> str:
        """The text that precedes a picture of `text`."""
        return tokens.generation_prompt(text)

    def edit_prompt(self, instruction: str) -> tuple[str, str]:
        """The texts before and after the source picture of an edit."""
        return tokens.edit_prompt(instruction)

    def chat_prompt(self, question: str, images: int = 1, system: str | None = None) -> str:
        """A question about pictures, with one placeholder each; system: what precedes it, or ""; None: as
        self.system says."""
        return tokens.chat_prompt(question, images, self.system if system is None else system)

    def encode(self, text: str, bos: bool = True, literal: bool = False) -> list[int]:
        """Text to ids; control tokens written out in it become theirs, unless it is literal: a user's words."""
        return self.tokenizer.encode(text, bos, literal)

    def decode(self, ids) -> str:
        """Ids to text, special tokens left out."""
        return self.tokenizer.decode(ids)

    def for_understanding(self, image):
        """PIL image -> f32[h,w,3] in [-1,1], letterboxed on grey."""
        return images.for_understanding(image, self.understanding_size)

    def for_generation(self, image):
        """PIL image -> f32[h,w,3] in [-1,1], centre-cropped."""
        return images.for_generation(image, self.generation_size)

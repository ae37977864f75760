"""Text tokenizers, special ids and the templates of the method (numpy only).

Pieces of a sequence are encoded one by one and their ids joined; sampled ids are never decoded and encoded again.
"""

import dataclasses
import functools
import re
from pathlib import Path

import numpy as np

from janus_jax.errors import UserError

BOS = "<｜begin▁of▁sentence｜>"
EOS = "<｜end▁of▁sentence｜>"
PAD = "<｜▁pad▁｜>"
USER = "<|User|>"
ASSISTANT = "<|Assistant|>"
BEGIN_IMAGE = "<begin_of_image>"
END_IMAGE = "<end_of_image>"
PLACEHOLDER = "<image_placeholder>"
SPECIAL = (BOS, EOS, PAD, USER, ASSISTANT, BEGIN_IMAGE, END_IMAGE, PLACEHOLDER)

THINK_SENTENCE = "Let me think Does this image match the prompt..."
NEXT_SENTENCE = "Next, I will draw a new image"
THINK = f"{END_IMAGE}\n{THINK_SENTENCE}"  # after a picture, before the verdict
NEXT = f"{EOS}\n{NEXT_SENTENCE}{BEGIN_IMAGE}"  # after a reason, before the next picture
EDIT_REQUEST = " Please generate an image."
SYSTEM_PROMPT = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
MAX_PROMPT_TOKENS = 200
MAX_REASON_TOKENS = 184


def generation_prompt(text: str) -> str:
    """The whole text before a picture; the prompt is stripped."""
    return f"{USER}: {text.strip()}\n\n{ASSISTANT}:{BEGIN_IMAGE}"


def edit_prompt(instruction: str) -> tuple[str, str]:
    """The texts before and after the source picture."""
    return f"{USER}: {BEGIN_IMAGE}", f"{END_IMAGE}{instruction.strip()}{EDIT_REQUEST}\n\n{ASSISTANT}:{BEGIN_IMAGE}"


def chat_prompt(question: str, images: int = 1, system: str = SYSTEM_PROMPT) -> str:
    """A question about `images` pictures; each is one placeholder, which the caller replaces by begin-of-image, the
    picture's tokens and end-of-image."""
    pictures = f"{PLACEHOLDER}\n" * images
    opening = f"{system}\n\n" if system else ""
    return f"{opening}{USER}: {pictures}{question.strip()}\n\n{ASSISTANT}:"


@dataclasses.dataclass(frozen=True)
class SpecialIds:
    """Ids read from a tokenizer; the 1B's and the 7B's differ."""

    bos: int
    eos: int
    pad: int
    begin_image: int
    end_image: int
    yes: int
    no: int


class Tokenizer:
    """A sentencepiece `tokenizer.model` or a `tokenizer.json`, by what a folder holds.

    Both behave alike: special tokens in the text become their ids, BOS is prepended only where asked for.
    """

    FILES = ("tokenizer.model", "tokenizer.json")

    def __init__(self, file_name: str, content: bytes):
        self.file_name, self.content = file_name, content
        try:
            if file_name == "tokenizer.json":
                import tokenizers

                self._json = tokenizers.Tokenizer.from_str(content.decode("utf-8"))
                self._pieces = None
            else:
                import sentencepiece

                self._pieces = sentencepiece.SentencePieceProcessor(model_proto=content)
        except Exception as error:  # both libraries raise bare exceptions of several kinds
            raise UserError(f"{file_name} cannot be read ({error}): copy the checkpoint again") from error

    @classmethod
    def from_folder(cls, folder) -> "Tokenizer":
        for name in cls.FILES:
            path = Path(folder) / name
            if path.is_file():
                return cls(name, path.read_bytes())
        raise UserError(f"{folder} holds no tokenizer: expected one of {', '.join(cls.FILES)}")

    @property
    def size(self) -> int:
        """Number of ids."""
        return self._json.get_vocab_size() if self._pieces is None else self._pieces.get_piece_size()

    def id(self, token: str) -> int:
        """The id of one token. Raises UserError where the tokenizer lacks it."""
        if self._pieces is None:
            found = self._json.token_to_id(token)
        else:
            found = self._pieces.piece_to_id(token)
            found = None if self._pieces.is_unknown(found) else found
        if found is None:
            raise UserError(f"the tokenizer has no token {token!r}: it is not a Janus tokenizer")
        return found

    @functools.cached_property
    def special(self) -> SpecialIds:
        names = (BOS, EOS, PAD, BEGIN_IMAGE, END_IMAGE, "Yes", "No")
        return SpecialIds(*(self.id(name) for name in names))

    def encode(self, text: str, bos: bool = True) -> list[int]:
        """Text to ids; special tokens written out in the text become theirs."""
        if self._pieces is None:
            ids = self._json.encode(text, add_special_tokens=False).ids
        else:
            ids = []
            for part in re.split(f"({'|'.join(map(re.escape, SPECIAL))})", text):
                if part in SPECIAL:
                    ids.append(self._pieces.piece_to_id(part))
                elif part:
                    ids += self._pieces.encode(part)
        return [self.special.bos, *ids] if bos else list(ids)

    def with_bos(self) -> bytes:
        """The content of a tokenizer.json that prepends BOS by itself: transformers 5 does it in no other way."""
        import tokenizers

        if self._json.encode("", add_special_tokens=True).ids[:1] == [self.special.bos]:
            return self.content
        copy = tokenizers.Tokenizer.from_str(self.content.decode())
        copy.post_processor = tokenizers.processors.TemplateProcessing(
            single=[BOS, "$A"], pair=[BOS, "$A", BOS, "$B:1"], special_tokens=[(BOS, self.special.bos)]
        )
        return copy.to_str().encode()

    def decode(self, ids) -> str:
        """Ids to text, special tokens left out."""
        ids = [int(i) for i in ids]
        if self._pieces is None:
            return self._json.decode(ids, skip_special_tokens=True)
        return self._pieces.decode([i for i in ids if i < self.size and not self._pieces.is_control(i)])


def prompt_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of a generation prompt, BOS first. Raises UserError where it is empty or longer than 200 tokens (the original
    cuts such prompts, and loses the end of the template with it)."""
    if not text.strip():
        raise UserError("the prompt is empty: say what to draw")
    ids = tokenizer.encode(generation_prompt(text))
    if len(ids) > MAX_PROMPT_TOKENS:
        raise UserError(
            f"the prompt has {len(ids)} tokens, more than {MAX_PROMPT_TOKENS}: shorten it: {text[:40]!r}..."
        )
    return ids


def unconditional(ids, pad: int) -> list[int]:
    """The row that guidance compares with: BOS and the last token stay, every token between them becomes PAD. These
    PADs are attended; they must never be masked."""
    return [ids[0], *[pad] * (len(ids) - 2), ids[-1]]


def left_pad(rows, pad: int, length: int | None = None):
    """Rows of ids to (i32[B,T], bool[B,T]), padded on the left; the mask is False on the padding alone."""
    length = length or max(len(row) for row in rows)
    ids = np.full((len(rows), length), pad, np.int32)
    mask = np.zeros((len(rows), length), bool)
    for i, row in enumerate(rows):
        if len(row) > length:
            raise ValueError(f"a row of {len(row)} tokens does not fit {length}")
        ids[i, length - len(row) :] = row
        mask[i, length - len(row) :] = True
    return ids, mask

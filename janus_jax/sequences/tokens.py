"""Text tokenizers, special ids and the templates of the method (numpy only).

Pieces of a sequence are encoded one by one and their ids joined; sampled ids are never decoded and encoded again.
Templates alone place control tokens: what a user writes is text to the letter, also where it spells one.
"""

import dataclasses
import functools
import itertools
import re
from pathlib import Path

from janus_jax.errors import UserError

BOS = "<｜begin▁of▁sentence｜>"
EOS = "<｜end▁of▁sentence｜>"
PAD = "<｜▁pad▁｜>"
USER = "<|User|>"
ASSISTANT = "<|Assistant|>"
BEGIN_IMAGE = "<begin_of_image>"
END_IMAGE = "<end_of_image>"
PLACEHOLDER = "<image_placeholder>"
PLACEHOLDER_LINE = f"{PLACEHOLDER}\n"
SPECIAL = (BOS, EOS, PAD, USER, ASSISTANT, BEGIN_IMAGE, END_IMAGE, PLACEHOLDER)
_SPECIAL = re.compile("|".join(map(re.escape, SPECIAL)))

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
MAX_INSTRUCTION_TOKENS = 90
MAX_REASON_TOKENS = 184


SLOT = "{}"  # where a text of the user's goes into a template
GENERATION = f"{USER}: {SLOT}\n\n{ASSISTANT}:{BEGIN_IMAGE}"
# before and after the source picture
EDIT = f"{USER}: {BEGIN_IMAGE}", f"{END_IMAGE}{SLOT}{EDIT_REQUEST}\n\n{ASSISTANT}:{BEGIN_IMAGE}"


def generation_prompt(text: str) -> str:
    """The whole text before a picture; the prompt is stripped."""
    return GENERATION.replace(SLOT, text.strip())


def edit_prompt(instruction: str) -> tuple[str, str]:
    """The texts before and after the source picture."""
    before, after = EDIT
    return before, after.replace(SLOT, instruction.strip())


def chat_prompt(question: str, images: int = 1, system: str = SYSTEM_PROMPT) -> str:
    """A question about `images` pictures; each is one placeholder, which the caller replaces by begin-of-image, the
    picture's tokens and end-of-image."""
    opening = f"{system}\n\n" if system else ""
    return f"{opening}{USER}: {PLACEHOLDER_LINE * images}{question.strip()}\n\n{ASSISTANT}:"


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

    def _find(self, token: str) -> int | None:
        if self._pieces is None:
            return self._json.token_to_id(token)
        found = self._pieces.piece_to_id(token)
        return None if self._pieces.is_unknown(found) else found

    def id(self, token: str) -> int:
        """The id of one token. Raises UserError where the tokenizer lacks it."""
        found = self._find(token)
        if found is None:
            raise UserError(f"the tokenizer has no token {token!r}: it is not a Janus tokenizer")
        return found

    @functools.cached_property
    def special(self) -> SpecialIds:
        names = (BOS, EOS, PAD, BEGIN_IMAGE, END_IMAGE, "Yes", "No")
        return SpecialIds(*(self.id(name) for name in names))

    @functools.cached_property
    def _controls(self) -> dict[int, str]:
        """The tokens that steer a model, by id: those of the templates and what else the tokenizer calls special."""
        if self._pieces is None:
            found = {i: token.content for i, token in self._json.get_added_tokens_decoder().items() if token.special}
        else:
            found = {i: self._pieces.id_to_piece(i) for i in range(self.size) if self._pieces.is_control(i)}
        return found | {self._find(token): token for token in SPECIAL if self._find(token) is not None}

    def encode(self, text: str, bos: bool = True, literal: bool = False) -> list[int]:
        """Text to ids; special tokens written out in the text become theirs, unless it is `literal`. Raises UserError
        for a text that has half a character (a lone surrogate), as a mangled file may."""
        if literal:
            return self.fill(SLOT, text, bos=bos)
        _check(text)
        if self._pieces is None:
            ids = self._json.encode(text, add_special_tokens=False).ids
        else:
            ids = []
            for part in re.split(f"({_SPECIAL.pattern})", text):
                if part in SPECIAL:
                    ids.append(self._pieces.piece_to_id(part))
                elif part:
                    ids += self._pieces.encode(part)
        return [self.special.bos, *ids] if bos else list(ids)

    def fill(self, template: str, *texts: str, bos: bool = True) -> list[int]:
        """The ids of a template with a text in place of each SLOT. Control tokens of the template become ids, those
        that a text spells are spelled out; of any other text these are the ids of the whole string."""
        pieces = template.split(SLOT)
        whole, spans = pieces[0], []
        for text, piece in zip(texts, pieces[1:], strict=True):
            _check(text)
            spans.append((len(whole), len(whole) + len(text)))
            whole += text + piece
        wanted = [found for found in map(self._find, _SPECIAL.findall(template)) if found in self._controls]
        for cuts in (lambda: (), lambda: self._in_tokens(whole, spans), lambda: _in_spans(spans)):
            ends = [0, *sorted(cuts()), len(whole)]
            parts = [whole[begin:end] for begin, end in itertools.pairwise(ends)]
            ids = [i for part in parts for i in self.encode(part, bos=False)]
            if [i for i in ids if i in self._controls] == wanted:
                return [self.special.bos, *ids] if bos else ids
        raise UserError(f"the text has a control token of the tokenizer: leave it out: {''.join(texts)[:40]!r}...")

    def _in_tokens(self, whole, spans) -> set[int]:
        """Places to cut a text so that no control token is left that lies in the spans, if only in part."""
        found = (
            (m.start(), token)
            for token in self._controls.values()
            for m in re.finditer(f"(?={re.escape(token)})", whole)
        )
        return {at + 1 for at, token in found if any(at < end and begin < at + len(token) for begin, end in spans)}

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


def _check(text: str) -> None:
    """Raises UserError for a text that is none, with a lone surrogate."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        place = f"{text[max(error.start - 20, 0) : error.end]!r}"
        raise UserError(f"the text has half a character, a lone surrogate, at the end of {place}") from error


def _in_spans(spans) -> set[int]:
    """Places to cut a text between any two characters of its spans."""
    return {at for begin, end in spans for at in range(begin + 1, end)}


def prompt_ids(tokenizer: Tokenizer, text: str, most: int | None = None) -> list[int]:
    """Ids of a generation prompt, BOS first. Raises UserError where it is empty, or longer than `most` tokens: for
    training, MAX_PROMPT_TOKENS (the original cuts such prompts, and loses the end of the template with it)."""
    if not text.strip():
        raise UserError("the prompt is empty: say what to draw")
    ids = tokenizer.fill(GENERATION, text.strip())
    if most is not None and len(ids) > most:
        raise UserError(f"the prompt has {len(ids)} tokens, more than {most}: shorten it: {text[:40]!r}...")
    return ids


def edit_ids(tokenizer: Tokenizer, instruction: str, most: int | None = None) -> tuple[list[int], list[int], list[int]]:
    """Ids before the source picture (BOS first), of the instruction, and after it; end-of-image stands between the
    first two. Raises UserError where the instruction is empty, or longer than `most` tokens: for training,
    MAX_INSTRUCTION_TOKENS."""
    if not instruction.strip():
        raise UserError("the instruction is empty: say what to change")
    before, rest = edit_prompt("")
    ids = tokenizer.encode(instruction.strip(), bos=False, literal=True)
    if most is not None and len(ids) > most:
        raise UserError(f"the instruction has {len(ids)} tokens, more than {most}: shorten it: {instruction[:40]!r}...")
    return tokenizer.encode(before), ids, tokenizer.encode(rest.removeprefix(END_IMAGE), bos=False)


def chat_ids(tokenizer: Tokenizer, question: str, images: int = 1, system: str = SYSTEM_PROMPT) -> list[list[int]]:
    """Ids before, between and after the `images` pictures of a question, images + 1 lists, BOS first. Raises UserError
    where the question is empty."""
    if not question.strip():
        raise UserError("the question is empty: say what to answer")
    template = chat_prompt(SLOT, images, SLOT if system else "")
    parts = template.replace(PLACEHOLDER, f"{BEGIN_IMAGE}{PLACEHOLDER}{END_IMAGE}").split(PLACEHOLDER)
    texts = iter(([system] if system else []) + [question.strip()])
    return [
        tokenizer.fill(part, *itertools.islice(texts, part.count(SLOT)), bos=i == 0) for i, part in enumerate(parts)
    ]

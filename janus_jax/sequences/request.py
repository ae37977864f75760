"""What is asked of the model: a picture of a prompt, or an edit of a source picture."""

import dataclasses
import functools
import zlib
from collections.abc import Iterable

import numpy as np
from PIL import Image


@dataclasses.dataclass(frozen=True)
class Request:
    """prompt: what to draw or, with `source`, the instruction of what to change in it. source: a PIL picture, or None:
    text-to-image."""

    prompt: str
    source: Image.Image | None = None

    @functools.cached_property
    def digest(self) -> tuple[int, ...]:
        """Numbers in [0, 2**32) that tell this request from others: what seeds its random bits. Asked for at every
        turn of every row; a large source takes milliseconds."""
        prompt = zlib.crc32(self.prompt.encode("utf-8", "surrogatepass"))  # half a character is refused later
        if self.source is None:
            return (prompt,)
        return prompt, zlib.crc32(np.ascontiguousarray(self.source.convert("RGB")))


def as_requests(prompts: Iterable[str | Request]) -> list[Request]:
    """Requests as they are, and plain prompts as text-to-image requests."""
    return [prompt if isinstance(prompt, Request) else Request(prompt) for prompt in prompts]

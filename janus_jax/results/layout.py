"""Parts of a drawn page: each knows its size and how to paint itself, and larger ones are made of smaller ones."""

from collections.abc import Callable
from typing import NamedTuple

from PIL import Image, ImageDraw

from janus_jax.results import lettering

INK, FAINT, PAPER = (34, 34, 40), (120, 120, 128), (252, 251, 248)


class Part(NamedTuple):
    """width, height: in pixels; paint(board, x, y) draws it on a PIL image, its top left corner there."""

    width: int
    height: int
    paint: Callable[[Image.Image, int, int], None]


def text(content: str, size: int, width: int, fill=INK) -> Part:
    """A text in a column of `width` pixels."""
    step = round(1.3 * size)
    lines = lettering.lines(content, size, width)

    def paint(board, x, y):
        pen = ImageDraw.Draw(board)
        for i, line in enumerate(lines):
            lettering.write(pen, (x, y + i * step), line, size, fill)

    return Part(round(max(lettering.length(line, size) for line in lines)), len(lines) * step, paint)


def stack(parts, gap: int = 0) -> Part:
    """Parts below one another."""
    return _placed([[part] for part in parts], 0, gap)


def flow(parts, width: int, across: int, down: int) -> Part:
    """Parts side by side in rows of at most `width` pixels, as words are set in lines; across, down: between them."""
    rows, used = [], 0
    for part in parts:
        if not rows or used + across + part.width > width:
            rows.append([part])
            used = part.width
        else:
            rows[-1].append(part)
            used += across + part.width
    return _placed(rows, across, down)


def _placed(rows, across, down) -> Part:
    heights = [max(part.height for part in row) for row in rows]
    widths = [sum(part.width for part in row) + across * (len(row) - 1) for row in rows]

    def paint(board, x, y):
        for row, height in zip(rows, heights, strict=True):
            left = x
            for part in row:
                part.paint(board, left, y)
                left += part.width + across
            y += height + down

    return Part(max(widths, default=0), sum(heights) + down * (len(rows) - 1), paint)


def page(part: Part, margin: int) -> Image.Image:
    """A part on paper, as an RGB PIL image."""
    board = Image.new("RGB", (part.width + 2 * margin, part.height + 2 * margin), PAPER)
    part.paint(board, margin, margin)
    return board

"""Storyboards: one picture that tells trajectories, drawn with Pillow."""

import textwrap

from PIL import Image, ImageChops, ImageDraw, ImageFont

MARGIN = 16
LIMIT = 12  # trajectories on one board
INK, FAINT, PAPER = (34, 34, 40), (120, 120, 128), (252, 251, 248)
YES, NO = (24, 128, 72), (190, 50, 44)


def _text(draw, place, text, width, font, fill):
    """Wraps text into a column of `width` pixels; returns the y below it."""
    x, y = place
    columns = max(int(width / (0.52 * font.size)), 8)
    for line in textwrap.wrap(text, columns) or [""]:
        draw.text((x, y), line, font=font, fill=fill)
        y += round(font.size * 1.3)
    return y


def storyboard(trajectories, side: int = 160, limit: int = LIMIT, title: str | None = None) -> Image.Image:
    """One row per trajectory, at most `limit`: the prompt, then each picture with its verdict, the model's P(yes) and
    its reason. The chosen picture has a frame. Of an edit the source comes first, and last what differs between it and
    the chosen picture. Returns an RGB PIL image."""
    shown = list(trajectories)[:limit]
    edits = any(t.request.source is not None for t in shown)
    columns = max(len(t.rounds) for t in shown) + 2 * edits
    label, column, row = 200, max(side, 190) + MARGIN, side + 84
    top = 56 if title else MARGIN
    board = Image.new("RGB", (MARGIN + label + columns * column + MARGIN, top + len(shown) * row + MARGIN), PAPER)
    draw = ImageDraw.Draw(board)
    title_font, font, small = (ImageFont.load_default(size) for size in (22, 17, 13))
    if title:
        draw.text((MARGIN, 18), title, font=title_font, fill=INK)
    for i, trajectory in enumerate(shown):
        y = top + i * row
        if i:
            draw.line((MARGIN, y - 8, board.width - MARGIN, y - 8), fill=(226, 224, 218))
        below = _text(draw, (MARGIN, y + 4), trajectory.prompt, label - MARGIN, font, INK)
        draw.text((MARGIN, below + 4), f"sample {trajectory.sample}", font=small, fill=FAINT)
        places = [(MARGIN + label + n * column, y) for n in range(columns)]
        if trajectory.request.source is not None:
            source = _square(trajectory.request.source, side)
            chosen = _square(trajectory.rounds[trajectory.final].image, side)
            _picture(board, draw, places.pop(0), source, "source", small)
            _picture(board, draw, places[-1], ImageChops.difference(source, chosen), "what differs", small)
        for turn, (shot, place) in enumerate(zip(trajectory.rounds, places, strict=False)):
            _round(board, draw, place, shot, turn == trajectory.final, side, column, small)
    return board


def _square(image, side):
    """The picture's centre, which is what an edit sees of its source, enlarged without smoothing."""
    short = min(image.size)
    left, top = ((length - short) // 2 for length in image.size)
    square = image.convert("RGB").crop((left, top, left + short, top + short))
    return square.resize((side, side), Image.Resampling.NEAREST if short < side else Image.Resampling.BICUBIC)


def _picture(board, draw, place, picture, caption, font):
    board.paste(picture, place)
    draw.text((place[0], place[1] + picture.height + 5), caption, font=font, fill=FAINT)


def _round(board, draw, place, shot, chosen, side, column, font):
    x, y = place
    board.paste(_square(shot.image, side), place)
    color = YES if shot.verdict else NO
    draw.rectangle((x - 1, y - 1, x + side, y + side), outline=color if chosen else FAINT, width=4 if chosen else 1)
    verdict = f"{'Yes' if shot.verdict else 'No'}  ({shot.p_yes:.0%} yes)"
    draw.text((x, y + side + 5), verdict, font=font, fill=color)
    reason = shot.reason.split(",", 1)[-1].strip() if "," in shot.reason else shot.reason
    _text(draw, (x, y + side + 23), reason, column - MARGIN, font, INK)

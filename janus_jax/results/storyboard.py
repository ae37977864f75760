"""Storyboards: one picture that tells trajectories, drawn with Pillow."""

import textwrap

from PIL import Image, ImageDraw, ImageFont

MARGIN = 16
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


def storyboard(trajectories, side: int = 160, limit: int = 12, title: str | None = None) -> Image.Image:
    """One row per trajectory, at most `limit`: the prompt, then each picture with its verdict, the model's P(yes) and
    its reason. The chosen picture has a frame. Returns an RGB PIL image."""
    shown = list(trajectories)[:limit]
    rounds = max(len(t.rounds) for t in shown)
    title_font, font, small = (ImageFont.load_default(size) for size in (22, 17, 13))
    label = 200
    column = max(side, 190) + MARGIN
    row = side + 84
    top = 56 if title else MARGIN
    board = Image.new("RGB", (MARGIN + label + rounds * column + MARGIN, top + len(shown) * row + MARGIN), PAPER)
    draw = ImageDraw.Draw(board)
    if title:
        draw.text((MARGIN, 18), title, font=title_font, fill=INK)
    for i, trajectory in enumerate(shown):
        y = top + i * row
        if i:
            draw.line((MARGIN, y - 8, board.width - MARGIN, y - 8), fill=(226, 224, 218))
        below = _text(draw, (MARGIN, y + 4), trajectory.prompt, label - MARGIN, font, INK)
        draw.text((MARGIN, below + 4), f"sample {trajectory.sample}", font=small, fill=FAINT)
        for turn, shot in enumerate(trajectory.rounds):
            x = MARGIN + label + turn * column
            board.paste(shot.image.convert("RGB").resize((side, side), Image.Resampling.NEAREST), (x, y))
            color = YES if shot.verdict else NO
            width = 4 if turn == trajectory.final else 1
            edge = color if turn == trajectory.final else FAINT
            draw.rectangle((x - 1, y - 1, x + side, y + side), outline=edge, width=width)
            verdict = f"{'Yes' if shot.verdict else 'No'}  ({shot.p_yes:.0%} yes)"
            draw.text((x, y + side + 5), verdict, font=small, fill=color)
            reason = shot.reason.split(",", 1)[-1].strip() if "," in shot.reason else shot.reason
            _text(draw, (x, y + side + 23), reason, column - MARGIN, small, INK)
    return board

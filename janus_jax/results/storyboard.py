"""Storyboards: one picture that tells trajectories, drawn with Pillow."""

import math

from PIL import Image, ImageChops, ImageDraw

from janus_jax.results.layout import FAINT, INK, Part, flow, page, stack, text
from janus_jax.sequences import images

MARGIN, WIDTH = 16, 1328  # of a board's contents: with its margins it fits a screen
LIMIT = 12  # trajectories on one board
YES, NO = (24, 128, 72), (190, 50, 44)
LEGEND = "frame: what the model says, green Yes, red No; thick: the picture it chose"


def storyboard(
    trajectories, side: int = 160, limit: int = LIMIT, title: str | None = None, scores=None, judge: str = "judge"
) -> Image.Image:
    """At most `limit` trajectories: the prompt, then each picture with the model's verdict, its P(yes) and its reason.
    Those of one prompt stand together under it, by their numbers; what does not fit a row of WIDTH pixels goes into the
    next one. Of an edit the source comes first, and last what differs between it and the chosen picture.

    scores: of each trajectory a list with each picture's score in [0, 1], NaN where it is unknown, by the `judge`,
    shown apart from the model's own verdict. Returns an RGB PIL image."""
    trajectories, legend = list(trajectories), LEGEND
    if scores is None:
        scores = [[None] * len(t.rounds) for t in trajectories]
    else:
        legend += f"; mark and number: what the {judge} says, green from 0.5"
    shown = list(zip(trajectories, scores, strict=True))[:limit]
    if len(trajectories) > len(shown):
        legend += f"; {len(shown)} of {len(trajectories)}"
    head = [*([text(title, 22, WIDTH)] if title else []), text(legend, 13, WIDTH, FAINT)]
    by_prompt = {}
    for trajectory, known in shown:
        by_prompt.setdefault(trajectory.prompt, []).append((trajectory, known))
    groups = [_group(prompt, members, side, judge) for prompt, members in by_prompt.items()]
    return page(stack([*head, flow(groups, WIDTH, 2 * MARGIN, MARGIN)], 6), MARGIN)


def _group(prompt, members, side, judge) -> Part:
    """Trajectories of one prompt."""
    members = sorted(members, key=lambda member: member[0].sample)
    stories = [_story(trajectory, scores, side, judge) for trajectory, scores in members]
    body = flow(stories, WIDTH, 2 * MARGIN, MARGIN)
    return stack([text(prompt, 17, max(body.width, side)), body], 4)


def _story(trajectory, scores, side, judge) -> Part:
    """One trajectory: its number, and its pictures in order."""
    shots = [
        _round(shot, score, turn == trajectory.final, side, judge)
        for turn, (shot, score) in enumerate(zip(trajectory.rounds, scores, strict=False))
    ]
    if trajectory.request.source is not None:
        source = _square(trajectory.request.source, side)
        chosen = _square(trajectory.rounds[trajectory.final].image, side)
        differs = ImageChops.difference(source, chosen)
        shots = [_captioned(source, "source"), *shots, _captioned(differs, "what differs")]
    return stack([text(f"sample {trajectory.sample}", 13, side, FAINT), flow(shots, WIDTH, MARGIN, MARGIN)], 4)


def _square(image, side):
    """The picture's centre, which is what an edit sees of its source, enlarged without smoothing."""
    square = images.centre(image.convert("RGB"))
    smooth = Image.Resampling.NEAREST if square.width < side else Image.Resampling.BICUBIC
    return square.resize((side, side), smooth)


def _picture(picture, color=None, thick=1) -> Part:
    """A picture, with a frame around it."""

    def paint(board, x, y):
        board.paste(picture, (x, y))
        if color:
            edges = (x - 1, y - 1, x + picture.width, y + picture.height)
            ImageDraw.Draw(board).rectangle(edges, outline=color, width=thick)

    return Part(picture.width, picture.height + 4, paint)


def _captioned(picture, caption) -> Part:
    part = stack([_picture(picture), text(caption, 13, picture.width, FAINT)])
    return part._replace(width=_column(picture.width))


def _column(side: int) -> int:
    """How wide a picture's column is: wide enough to read a reason in it."""
    return max(side, 190)


def _round(shot, score, chosen, side, judge) -> Part:
    color, width = YES if shot.verdict else NO, _column(side)
    said = [text(f"{'Yes' if shot.verdict else 'No'}  ({shot.p_yes:.0%} yes)", 13, width, color)]
    if score is not None:
        said.append(_score(score, judge, width))
    reason = shot.reason.split(",", 1)[-1].strip() if "," in shot.reason else shot.reason
    said.append(text(reason, 13, width))
    part = stack([_picture(_square(shot.image, side), color, 4 if chosen else 1), *said])
    return part._replace(width=width)


def _score(score, judge, width) -> Part:
    """What somebody else than the model says of a picture: a mark and a number."""
    unknown = not math.isfinite(score)
    words = text(f"{judge}: {'missing' if unknown else f'{score:.2f}'}", 13, width - 16, INK)

    def paint(board, x, y):
        mark = FAINT if unknown else YES if score >= 0.5 else NO
        ImageDraw.Draw(board).ellipse((x, y + 4, x + 9, y + 13), fill=mark)
        words.paint(board, x + 16, y)

    return Part(words.width + 16, words.height, paint)

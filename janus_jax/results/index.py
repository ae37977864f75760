"""A folder's pictures as a page: index.html, with what the model and, where it is known, somebody else says of each."""

import itertools
from typing import NamedTuple

from janus_jax.results.webpage import document, escaped, image, link, settings

SIDE = 192  # of a picture on the page, in CSS pixels; those of small models are enlarged without smoothing
STYLE = f"""
section {{ border-top: 1px solid #e2e0da; content-visibility: auto; contain-intrinsic-size: auto 340px }}
.story {{ display: inline-block; margin: 0 28px 14px 0; vertical-align: top }}
.shots {{ display: flex; flex-wrap: wrap; gap: 10px }}
figure {{ width: {SIDE + 8}px; font-size: 13px }} figure img {{ width: {SIDE}px; height: {SIDE}px; object-fit: cover;
  image-rendering: pixelated; border: 1px solid #787880; padding: 3px; display: block }}
figure.said-yes img {{ border-color: #188048 }} figure.said-no img {{ border-color: #be322c }}
figure.chosen img {{ border-width: 4px; padding: 0 }}
"""
LEGEND = (
    "A frame is what the model itself says of a picture, green Yes and red No; a thick one is round the picture it "
    "chose. A click opens the file."
)


class Shot(NamedTuple):
    """A picture on the page: the file's path relative to it, what the model says (p_yes in [0, 1]), and in `judged`
    what somebody else says, in words with whether that is good, or None. large: the file that a click opens, if that is
    another one."""

    image: str
    verdict: bool
    p_yes: float
    reason: str
    judged: tuple[str, bool] | None = None
    large: str | None = None


class Story(NamedTuple):
    """A trajectory on the page. final: which shot was chosen; source: the path of an edit's source, or None."""

    prompt: str
    sample: int
    shots: list[Shot]
    final: int
    source: str | None = None


def page(title: str, facts: dict, stories, links=()) -> str:
    """The page of stories, those of one prompt that follow one another together. facts: settings, by name; links:
    further files beside the page."""
    stories = list(stories)
    groups = [
        (prompt, list(members))
        for (prompt, _), members in itertools.groupby(stories, key=lambda story: (story.prompt, story.source))
    ]
    pictures = sum(len(story.shots) for story in stories)
    count = f"{pictures} picture{'s' * (pictures != 1)} of {len(groups)} prompt{'s' * (len(groups) != 1)}. "
    more = " · ".join(link(name, escaped(name)) for name in links)
    sections = (
        f'<section><h2 dir="auto">{escaped(prompt)}</h2>{"".join(map(_story, members))}</section>\n'
        for prompt, members in groups
    )
    body = f'<p class="faint">{count}{LEGEND}</p>{f"<p>{more}</p>" if more else ""}{settings(facts)}'
    return document(title, body + "".join(sections), STYLE)


def _story(story: Story) -> str:
    figures = [_shot(shot, turn == story.final) for turn, shot in enumerate(story.shots)]
    if story.source:
        figures.insert(0, f'<figure>{_linked(story.source)}<figcaption class="faint">source</figcaption></figure>')
    shots = f'<div class="shots">{"".join(figures)}</div>'
    return f'<div class="story"><div class="faint">sample {story.sample}</div>{shots}</div>'


def _shot(shot: Shot, chosen: bool) -> str:
    name = "yes" if shot.verdict else "no"
    lines = [f'<div class="{name}">{"Yes" if shot.verdict else "No"} ({shot.p_yes:.0%} yes)</div>']
    if shot.judged:
        words, good = shot.judged
        lines.append(f'<div><span class="{"yes" if good else "no"}">●</span> {escaped(words)}</div>')
    lines.append(f'<div dir="auto">{escaped(shot.reason)}</div>')
    caption = f"<figcaption>{''.join(lines)}</figcaption>"
    return (
        f'<figure class="said-{name}{" chosen" if chosen else ""}">{_linked(shot.image, shot.large)}{caption}</figure>'
    )


def _linked(path: str, large: str | None = None) -> str:
    return link(large or path, image(path, SIDE))

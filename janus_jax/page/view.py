"""Trajectories, answers and verdicts as HTML. What a model or a user wrote is escaped."""

import base64
import functools
import html
import io

from PIL import Image

from janus_jax.sampling.edit import placed_back
from janus_jax.sampling.rollout import Round, Trajectory

ENLARGED = 192  # pixels: smaller pictures are shown at this size, without smoothing
STYLE = """
.samples { display: flex; flex-wrap: wrap; gap: 1rem 2rem; }
.samples .again { flex: 1 0 100%; max-width: 100%; }
.rows h3 { font-size: 1rem; margin: 0 0 .4rem; }
.rows ol { display: flex; flex-wrap: wrap; gap: 1rem; list-style: none; margin: 0; padding: 0; }
.rows li { width: 220px; max-width: 100%; margin: 0; padding: .6rem; box-sizing: border-box;
  border: 1px solid var(--border-color-primary); border-radius: 6px; }
.rows li.chosen { border: 2px solid var(--body-text-color); padding: calc(.6rem - 1px); }
.rows img { width: 100%; height: auto; display: block; margin: 0 0 .5rem; }
.rows img.enlarged { image-rendering: pixelated; }
.rows p { display: block; margin: .15rem 0; line-height: 1.4; overflow-wrap: anywhere; }
.rows .note { color: #57534e; font-size: .875rem; } .dark .rows .note { color: #a8a29e; }
.rows .yes, .rows .no { font-weight: 600; }
.rows .yes { color: #12703c; } .rows .no { color: #b3261e; }
.dark .rows .yes { color: #6fd39b; } .dark .rows .no { color: #ff9c92; }
.rows pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .8125rem; padding: .6rem; border-radius: 6px;
  background: var(--background-fill-secondary); color: var(--body-text-color); }
@media (max-width: 640px) { .rows li { width: 100%; } }
"""


@functools.lru_cache(256)  # finished pictures are shown again and again
def _data_url(size, pixels: bytes, smooth: bool) -> str:
    buffer = io.BytesIO()
    Image.frombytes("RGB", size, pixels).save(buffer, "PNG", compress_level=1 if smooth else 6)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def picture(image: Image.Image, said: str) -> str:
    """An <img>; said: what it is, in words."""
    image, small = image.convert("RGB"), max(image.size) < ENLARGED
    url = _data_url(image.size, image.tobytes(), not small)
    return f'<img {"class=enlarged " if small else ""}src="{url}" alt="{html.escape(said)}">'


def _said(verdict: bool, p_yes: float, reason: str) -> str:
    """The model's words, their verdict coloured, and how sure it was."""
    word, rest = "Yes" if verdict else "No", reason.lstrip()
    words = f'<span class="{word.lower()}">{word}</span>{html.escape(rest.removeprefix(word))}'
    return f"<p>{words}</p><p class=note>P(yes) {p_yes:.2f}</p>"


def _round(shot: Round, number: int, codes: int, sample: str, chosen: bool) -> str:
    shown = picture(shot.image, f"{sample}, picture {number}")
    if shot.verdict is not None:
        said = _said(shot.verdict, shot.p_yes, shot.reason)
    elif len(shot.codes) < codes:
        said = f"<p class=note>drawing: {len(shot.codes)} of {codes} codes</p>"
    else:
        said = "<p class=note>looking at it</p>"
    name = f"Picture {number}{', chosen' if chosen else ''}"
    return f"<li{' class=chosen' if chosen else ''}>{shown}<p class=note>{name}</p>{said}</li>"


def trajectories(found: list[Trajectory], codes: int, done: bool, command: str | None = None) -> str:
    """A row of pictures per trajectory. codes: of a whole picture; done: nothing more will come, and the chosen
    pictures are marked; command: what draws the same from the command line."""
    rows = []
    for t in found:
        if not t.rounds:
            continue
        sample = f"Sample {t.sample}"
        cells = [_round(shot, n + 1, codes, sample, done and n == t.final) for n, shot in enumerate(t.rounds)]
        if t.request.source is not None:
            cells.insert(0, f"<li>{picture(t.request.source, 'Source')}<p class=note>Source</p></li>")
            if done and len(set(t.request.source.size)) > 1:
                whole = placed_back(t.request.source, t.rounds[t.final].image)
                cells.append(f"<li>{picture(whole, sample + ', in its place')}<p class=note>In its place</p></li>")
        rows.append(f"<section><h3>{sample}</h3><ol>{''.join(cells)}</ol></section>")
    if command:
        told = f"<p class=note>The same from the command line:</p><pre>{html.escape(command)}</pre>"
        rows.append(f"<div class=again>{told}</div>")
    return f'<div class="rows samples">{"".join(rows)}</div>'


def verdict(p_yes: float, reason: str) -> str:
    """What is said of a judged picture."""
    return f"<div class=rows>{_said(reason.lstrip().startswith('Yes'), p_yes, reason)}</div>"


def answer(text: str) -> str:
    """What is said to a question."""
    return f'<div class=rows><p style="white-space: pre-wrap">{html.escape(text)}</p></div>'

"""Texts in any script on drawn pictures: the font that has a text's characters, the breaks of its lines."""

import functools
import unicodedata
from importlib import resources

import arabic_reshaper
from bidi import get_display
from PIL import ImageFont, features

# Pillow's own font has plain Latin letters; Kurinto Sans has most scripts, and Han characters by country.
KURINTO = ("Sans", "SansSC", "SansJP", "SansKR", "SansTC")
FONTS = range(1 + len(KURINTO))
JOINS = features.check_feature("raqm") and features.check_feature("fribidi")  # Pillow joins and orders letters itself
ABSENT = "\uffff"  # is no character, so no font has it


@functools.cache
def _font(number: int, size: int):
    if number == 0:
        return ImageFont.load_default(size)
    folder = resources.files("weblate_fonts") / "static" / "weblate_fonts" / "kurinto" / "ttf"
    return ImageFont.truetype(str(folder / f"Kurinto{KURINTO[number - 1]}-Rg.ttf"), size)


@functools.cache
def _has(number: int, character: str) -> bool:
    """Whether a font draws a character otherwise than one it does not have."""
    draw = _font(number, 16).getmask
    return bytes(draw(character)) != bytes(draw(ABSENT))


def _drawable(text: str) -> str:
    """The text in one line, with characters that no font has as their escapes. Marks of format (of the direction, and
    such) stay where Pillow knows what they mean."""
    kept = []
    for c in " ".join(unicodedata.normalize("NFC", text).split()):
        kind = unicodedata.category(c)
        if kind == "Cf":
            c = c if JOINS else ""
        elif kind == "Cs" or not any(_has(number, c) for number in FONTS):
            c = c.encode("unicode_escape").decode()
        kept.append(c)
    return "".join(kept)


def _runs(line: str) -> list[tuple[str, int]]:
    """(piece, number of its font) of a drawable line: one piece where a font has all of it, since letters join and
    order themselves within a piece only."""
    if not JOINS:
        line = get_display(arabic_reshaper.reshape(line))
    for number in FONTS:
        if all(_has(number, c) for c in line):
            return [(line, number)]
    runs = []
    for c in line:
        if runs and _has(runs[-1][1], c):
            runs[-1] = runs[-1][0] + c, runs[-1][1]
        else:
            runs.append((c, next((number for number in FONTS if _has(number, c)), 0)))
    return runs


def _letters(word: str) -> list[str]:
    """The characters of a word, marks with those they stand on."""
    found = []
    for c in word:
        if found and unicodedata.category(c)[0] == "M":
            found[-1] += c
        else:
            found.append(c)
    return found


def length(text: str, size: int) -> float:
    """The width of a text in one line, in pixels."""
    return sum(_font(number, size).getlength(piece) for piece, number in _runs(_drawable(text)))


def lines(text: str, size: int, width: int) -> list[str]:
    """A text as lines of at most `width` pixels, at least one: broken at spaces, and within words that are longer than
    a line, as those of scripts without spaces."""
    found, line = [], ""
    for word in _drawable(text).split(" "):
        line += " " if line else ""
        for part in [word] if length(word, size) <= width else _letters(word):
            if line and length(line + part, size) > width:
                found.append(line.rstrip())
                line = ""
            line += part
    return [*found, line]


def write(pen, place, text: str, size: int, fill) -> None:
    """Draws a text in one line, its top left corner at a place. pen: an ImageDraw; size: of the letters, in pixels."""
    x, y = place
    for piece, number in _runs(_drawable(text)):
        font = _font(number, size)
        pen.text((x, y + size), piece, font=font, fill=fill, anchor="ls")
        x += font.getlength(piece)

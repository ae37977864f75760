"""Texts on pictures: no box, and no line wider than its column."""

import pytest
from PIL import Image, ImageDraw

from janus_jax.results import lettering

TEXTS = {
    "latin": "three red circles, naïve café — “left” → right…",
    "cyrillic": "три красных круга",
    "han": "红色的圆形在蓝色方块的左边",
    "kana": "赤い丸と青い四角",
    "hangul": "빨간 원과 파란 사각형",
    "arabic": "دائرة حمراء إلى يسار مربع أزرق",
    "hebrew": "עיגול אדום משמאל לריבוע כחול",
    "devanagari": "लाल वृत्त और नीला वर्ग",
    "thai": "วงกลมสีแดงทางซ้ายของสี่เหลี่ยมสีน้ำเงิน",
    "mixed": "红 빨간 い лево دائرة",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_any_script_has_its_letters(text):
    for piece, number in lettering._runs(lettering._drawable(text)):
        assert all(lettering._has(number, c) for c in piece), f"{piece} would be boxes"
    assert "\\" not in lettering._drawable(text)


def test_what_no_font_has_is_its_escape(monkeypatch):
    assert not any(lettering._has(number, "\U0001f9ff") for number in lettering.FONTS)
    assert lettering._drawable("a \U0001f9ff\tb\n\ud800") == "a \\U0001f9ff b \\ud800"
    monkeypatch.setattr(lettering, "JOINS", False)
    assert lettering._drawable("a\u200e b") == "a b"


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("width", [60, 190])
def test_lines_fit_and_keep_all(text, width):
    found = lettering.lines(text, 13, width)
    assert all(lettering.length(line, 13) <= width for line in found)
    assert "".join(found).replace(" ", "") == lettering._drawable(text).replace(" ", "")
    words = text.split()
    if all(lettering.length(word, 13) <= width for word in words):
        assert " ".join(found).split() == words  # no word is broken


def test_marks_stay_on_their_letters():
    assert lettering._letters("नी") == ["नी"] and lettering._letters("ab") == ["a", "b"]


@pytest.mark.parametrize("joins", [True, False])
def test_arabic_is_joined_and_ordered(joins, monkeypatch):
    """Two letters that join are narrower than each alone, in Pillow's own way or ours."""
    monkeypatch.setattr(lettering, "JOINS", joins and lettering.JOINS)
    if not joins:
        assert lettering._runs("بب")[0][0] == "\ufe90\ufe91"  # the final form left of the initial one
    together, apart = lettering.length("بب", 16), 2 * lettering.length("ب", 16)
    assert together < apart


def test_a_line_is_one_piece_where_a_font_has_all_of_it():
    """Else words of two directions would stand in the wrong order."""
    assert [piece for piece, _ in lettering._runs("circle ab")] == ["circle ab"]
    assert [piece for piece, _ in lettering._runs("circle \u0628")] == ["circle \u0628"]
    assert len(lettering._runs("\u7ea2 \ube68")) == 2  # no font has both


def test_write_draws_at_its_place():
    board = Image.new("L", (200, 40), 255)
    lettering.write(ImageDraw.Draw(board), (20, 10), "红 red", 16, 0)
    left, top, right, bottom = board.point(lambda x: 255 - x).getbbox()
    assert 20 <= left < 24 and right <= 20 + lettering.length("红 red", 16) + 1 and 8 <= top and bottom <= 32

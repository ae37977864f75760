"""Lines of files, and bad records among good ones."""

import os

import pytest

from janus_jax.data import records
from janus_jax.errors import UserError


def numbered(path, most_bad=0.0):
    return list(records.lines(path, records.Tally(path, most_bad)))


@pytest.mark.parametrize(
    "content, expected",
    [
        (b"a\nb\n", [(1, "a"), (2, "b")]),
        (b"a\r\n\r\n \r\nb", [(1, "a"), (4, "b")]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb", [(1, "a"), (2, "\ufeffb")]),
        ("a\u2028b\x85c\x0bd\x1ee\n f ".encode(), [(1, "a\u2028b\x85c\x0bd\x1ee"), (2, " f ")]),
        (b"", []),
        (b"a\rb\n", [(1, "a\rb")]),
    ],
)
def test_lines(tmp_path, content, expected):
    (tmp_path / "x").write_bytes(content)
    assert numbered(tmp_path / "x") == expected


def refused(function, *args):
    with pytest.raises(UserError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_that_are_none(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "cannot read" in refused(numbered, tmp_path / "pipe") and "no regular file" in refused(
        numbered, tmp_path / "pipe"
    )
    assert "no regular file" in refused(numbered, tmp_path)
    assert "No such file" in refused(numbered, tmp_path / "absent")
    assert "cannot read" in refused(numbered, "a\0b")
    (tmp_path / "wide").write_text("a\n", encoding="utf-16")
    assert "it is UTF-16 text, save it as UTF-8" in refused(numbered, tmp_path / "wide")


def number(text):
    if not text.isdigit():
        raise records.BadRecord(f"{text!r} is no number", "no number")
    if text == "0":
        raise UserError("it is 0")
    return int(text)


def test_bad_records_are_counted(tmp_path, capsys):
    path = tmp_path / "x"
    path.write_text("\n".join(["1", "x", "2", "y", "0", "z", *"3456789", "\udcff"]), "utf-8", "surrogateescape")
    tally = records.Tally(path, 0.4)
    assert records.read(path, number, tally) == list(range(1, 10))
    assert tally.good == 9 and tally.left_out == 5
    assert tally.bad["no number"] == (3, "line 2: 'x' is no number")
    tally.close()
    said = capsys.readouterr().err
    assert said == (
        f"{path}: left out 5 of 14 records: 3 x no number (first: line 2: 'x' is no number); "
        "1 x it is 0 (first: line 5: it is 0); 1 x it is not UTF-8 text (first: line 14: it is not UTF-8 text)\n"
    )
    tally.check(total=13)
    tally.most_bad = 0.35
    assert "line 2: 'x' is no number (5 of 14 records are bad, more than the share 0.35" in refused(tally.check)
    tally.check(total=100)
    assert refused(records.read, path, number, records.Tally(path, 0.0)) == f"{path}, line 2: 'x' is no number"
    silent = records.Tally(path)
    silent.good = 3
    silent.close()
    assert not capsys.readouterr().err


def test_fields(tmp_path):
    entry = records.json_object('{"a": " x ", "b": 3, "c": " ", "d": "\\ud800", "p": "q/r.png", "n": "a\\u0000b"}')
    assert records.text_in(entry, "a") == "x"
    for key, words in (("z", "'z' is missing"), ("b", "'b' is no text"), ("c", "the c is empty"), ("d", "surrogate")):
        assert words in refused(records.text_in, entry, key)
    assert records.path_in(entry, "p", tmp_path) == tmp_path / "q" / "r.png"
    for line in ("{", "[1]", "3", "[" * 100_000, '{"a": ' + "9" * 5000 + "}"):
        assert "JSON" in refused(records.json_object, line)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "a/b/../../../x"])
def test_paths_that_leave_their_folder(tmp_path, name):
    assert "leads out of" in refused(records.path_in, {"p": name}, "p", tmp_path)
    assert records.path_in({"p": name}, "p", tmp_path, allow_outside=True) == tmp_path / name


def test_paths_that_stay(tmp_path, monkeypatch):
    for name in ("x", "a/../x", "./a/b", str(tmp_path / "x"), "..x"):
        assert records.path_in({"p": name}, "p", tmp_path) == tmp_path / name
    monkeypatch.chdir(tmp_path)
    assert str(records.path_in({"p": "x"}, "p", ".")) == "x"
    assert "leads out" in refused(records.path_in, {"p": "../x"}, "p", ".")

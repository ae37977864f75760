"""Faults in prompt files: the line, and what is wrong with it."""

import json

import benchmark_files
import pytest

from janus_jax.errors import UserError
from janus_jax.layouts.entries import entries
from janus_jax.layouts.table import SUITES


def fault(suite, path, images=None):
    with pytest.raises(UserError) as caught:
        SUITES[suite].items([path], images)
    line = str(caught.value)
    assert "\n" not in line and str(path) in line
    return line.replace(str(path), "FILE")


def changed(path, number, line):
    """The file with another line of that number."""
    lines = path.read_text().splitlines()
    lines[number - 1] = line
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("suite", SUITES)
def test_files_as_their_owners_write_them(suite, tmp_path):
    items = SUITES[suite].items([getattr(benchmark_files, suite)(tmp_path)])
    assert len({item.name for item in items}) == len(items) == 3 - (suite not in ("geneval", "gedit", "imgedit"))
    assert all((item.source is not None) == SUITES[suite].edits for item in items)


GENEVAL = {
    '{"tag": "colors"': "FILE, line 2: it is not JSON",
    "[1]": "FILE, line 2: it is no JSON object",
    '{"include": [], "prompt": "x"}': "FILE, line 2: 'tag' is missing",
    '{"tag": "t", "include": [], "prompt": " "}': "FILE, line 2: the prompt is empty",
    '{"tag": "t", "include": [], "prompt": "x"}': "FILE, line 2: neither 'include' nor 'exclude'",
    '{"tag": "t", "include": {}, "prompt": "x"}': "FILE, line 2: 'include' is no list",
    '{"tag": "t", "include": [], "exclude": [{"class": "x"}], "prompt": "x"}': "FILE, line 2: 'exclude' is no list",
}


@pytest.mark.parametrize(("line", "said"), GENEVAL.items())
def test_geneval(line, said, tmp_path):
    assert said in fault("geneval", changed(benchmark_files.geneval(tmp_path), 2, line))


def test_geneval2_and_t2i_compbench(tmp_path):
    path = changed(benchmark_files.geneval2(tmp_path), 2, '{"prompt": "a cow"}')
    assert "FILE, line 2: 'vqa_list' is no list" in fault("geneval2", path)
    path = benchmark_files.t2i_compbench(tmp_path)
    assert "FILE, line 2: the prompt holds an underscore" in fault("t2i_compbench", changed(path, 2, "a_cow"))
    assert "FILE, line 2: 'a/cow' cannot be the name of a file" in fault("t2i_compbench", changed(path, 2, "a/cow"))
    assert "FILE, line 2: 'aaaa" in fault("t2i_compbench", changed(path, 2, "a" * 241))
    path.write_text("\n\n")
    assert "FILE holds no prompt" in fault("t2i_compbench", path)


def test_dpg(tmp_path):
    folder = benchmark_files.dpg(tmp_path)
    (folder / "2.txt").write_text("\n")
    with pytest.raises(UserError, match=r"2\.txt, line 1: the prompt is empty"):
        SUITES["dpg"].items([folder])
    table = tmp_path / "dpg_bench.csv"
    table.write_text('item_id,text,proposition_id\n7,"a cow,\nred",1\n7,"a cow,\nred",2\n8,a dog,1\n')
    assert [(item.name, item.prompt) for item in SUITES["dpg"].items([table])] == [("7", "a cow,\nred"), ("8", "a dog")]
    table.write_text("item_id,text\n7,a cow\n7,a dog\n")
    assert "FILE, line 3: item 7 has another text than before" in fault("dpg", table)
    table.write_text("item_id,words\n7,a cow\n")
    assert "FILE, line 2: 'text' is missing" in fault("dpg", table)


def test_wise(tmp_path):
    path = benchmark_files.wise(tmp_path)
    second = path.read_text().splitlines().index("    {", 2) + 1
    for entry, said in (
        ({"Prompt": "x", "prompt_id": 1}, "1 stands twice"),
        ({"Prompt": "x", "prompt_id": "a"}, "'prompt_id' is no whole number"),
        ({"prompt_id": 3}, "'Prompt' is missing"),
    ):
        path.write_text(json.dumps([benchmark_files.WISE[0], entry], indent=4))
        assert f"FILE, line {second}: {said}" in fault("wise", path)
    items = SUITES["wise"].items([benchmark_files.wise(tmp_path)])
    assert [(item.name, item.prompt) for item in items] == [
        (str(e["prompt_id"]), e["Prompt"]) for e in benchmark_files.WISE
    ]


def test_edits(tmp_path):
    path = benchmark_files.pie_bench(tmp_path)
    text = path.read_text()
    begins = text.splitlines().index('    "111000000002": {') + 1
    for old, new, said in (
        ("1_change/1_artificial", "../..", "leads out of"),
        ("1_change/1_artificial", "2_gone", "there is no picture"),
    ):
        path.write_text(text.replace(old, new))
        assert f"line {begins}: " in fault("pie_bench", path) and said in fault("pie_bench", path)
    path.write_text(text[: text.rindex('"editing_instruction"')] + '"mask": []}}')
    assert f"FILE, line {begins}: 'editing_instruction' is missing" in fault("pie_bench", path)
    path = changed(benchmark_files.imgedit(tmp_path), 7, '    "1082": {')
    assert "FILE, line 7: 1082 stands twice" in fault("imgedit", path)
    assert "say where the pictures lie with --images" in fault("imgedit", path, tmp_path / "elsewhere")
    path = benchmark_files.gedit(tmp_path)
    entry = json.loads(path.read_text().splitlines()[1])
    for change, said in (
        ({"instruction_language": "de"}, "'instruction_language' is 'de': it must be en or cn"),
        ({"key": "../k"}, "'../k' cannot be the name of a file"),
        ({"instruction_language": "en"}, "color_alter/en/k1 stands twice"),
    ):
        assert f"FILE, line 2: {said}" in fault("gedit", changed(path, 2, json.dumps(entry | change)))


JSON = {
    "": "line 1: it is not JSON: a JSON object should stand where the end of the file does",
    "[]": "a JSON object should stand where '[' does",
    '{\n"a" 1}': "line 2: it is not JSON: a colon should stand where '1' does",
    "{\na: 1}": "line 2: it is not JSON: a key in quotes",
    '{"a": 1\n"b": 2}': "line 2: it is not JSON: a comma or '}' should stand where '\"' does",
    '{"a": 1,\n}': "line 2: it is not JSON: another entry",
    '{"a": 1}\n\nx': "line 3: it is not JSON: the end of the file should stand where 'x' does",
    '{"a": [1,\n2': "line 2: it is not JSON",
    '{"a": 1': "a comma or '}' should stand where the end of the file does",
}


@pytest.mark.parametrize(("text", "said"), JSON.items())
def test_what_is_no_json(text, said, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        list(entries(path, dict))
    assert said in str(caught.value)
    with pytest.raises(ValueError):
        assert not isinstance(json.loads(text), dict), "json itself must refuse it, or find another kind"
        raise ValueError


def test_entries_are_those_of_json(tmp_path):
    value = {"a": [1, {"b": None}], "ä\n": {"c": "}"}, "a\\": 2.5, "": []}
    for text in (json.dumps(value), "\ufeff" + json.dumps(value, indent=3, ensure_ascii=False), "{ }", "[1, [2]]\n"):
        path = tmp_path / "a.json"
        path.write_text(text, encoding="utf-8")
        kind = list if text.startswith("[") else dict
        found = [(key, each) for _, key, each in entries(path, kind)]
        expected = json.loads(text.removeprefix("\ufeff"))
        assert found == (list(expected.items()) if kind is dict else [(None, each) for each in expected])
    path.write_text('{"a":\n1,\n\n"b": [\n2], "c": 3}')
    assert [(line, key) for line, key, _ in entries(path, dict)] == [(1, "a"), (4, "b"), (5, "c")]

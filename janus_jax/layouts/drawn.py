"""The layouts of benchmarks that ask for pictures of prompts: which items a prompts file holds, and which files the
scorer reads of each. The facts are of the scorers' own files, which docs/benchmarks.md names."""

import csv
import json
from pathlib import Path

from PIL import Image

from janus_jax.data import records
from janus_jax.data.records import BadRecord, json_object, text_in
from janus_jax.errors import UserError
from janus_jax.layouts import entries
from janus_jax.layouts.item import Item, Names, part_of_path, raw_text


def lines_of(paths, parse) -> list:
    """parse(line) of every line of some files. Raises UserError with file and line for the first that it refuses."""
    return [found for path in paths for found in records.read(path, parse, records.Tally(path, 0.0))]


def geneval(paths, images) -> list[Item]:
    """Of evaluation_metadata.jsonl: {"tag", "include", "prompt", ...}; an item is its line's number from 0."""

    def parse(line):
        entry = json_object(line)
        text_in(entry, "tag")
        for key in ("include", "exclude"):
            clauses = entry.get(key, [])
            if not (isinstance(clauses, list) and all(map(_is_clause, clauses))):
                raise BadRecord(f'{key!r} is no list of {{"class", "count", ...}}')
        prompt = text_in(entry, "prompt")
        if not entry.get("include") and not entry.get("exclude"):
            raise BadRecord("neither 'include' nor 'exclude' says what to look for: any picture would pass")
        return prompt, line.strip()

    found = lines_of(paths, parse)
    return [Item(f"{i:05}", prompt, i, line=line) for i, (prompt, line) in enumerate(found)]


def _is_clause(value) -> bool:
    return isinstance(value, dict) and {"class", "count"} <= value.keys()


def geneval_files(item: Item, pictures, source) -> dict:
    """00000/metadata.jsonl, 00000/samples/0000.png ..."""
    samples = {f"{item.name}/samples/{k:04}.png": picture for k, picture in enumerate(pictures)}
    return {f"{item.name}/metadata.jsonl": item.line + "\n", **samples}


def geneval2(paths, images) -> list[Item]:
    """Of geneval2_data.jsonl: {"prompt", "vqa_list", ...}. A prompt that stands twice is one item."""

    def parse(line):
        entry = json_object(line)
        if not isinstance(entry.get("vqa_list"), list):
            raise BadRecord("'vqa_list' is no list of questions and answers")
        return raw_text(entry, "prompt")

    return [Item(f"{i:04}", prompt, i) for i, prompt in enumerate(dict.fromkeys(lines_of(paths, parse)))]


def geneval2_files(item: Item, pictures, source) -> dict:
    """images/0000.png ..."""
    return {f"images/{item.name}.png": pictures[0]}


def geneval2_index(items) -> dict[str, str]:
    """image_paths.json: prompt -> picture, relative to the tree, so that it can be moved."""
    paths = {item.prompt: f"images/{item.name}.png" for item in items}
    return {"image_paths.json": json.dumps(paths, indent=1, ensure_ascii=False) + "\n"}


def t2i_compbench(paths, images) -> list[Item]:
    """Of one category's *_val.txt: a prompt per line, up to the first tab. The scorers read the prompt from the file's
    name, up to the first underscore."""

    def parse(line):
        prompt = line.split("\t")[0]
        if "_" in prompt:
            raise BadRecord("the prompt holds an underscore, where the scorers would cut it off: take it out")
        return part_of_path(prompt)

    return [Item(prompt, prompt, i) for i, prompt in enumerate(lines_of(paths, parse))]


def t2i_compbench_files(item: Item, pictures, source) -> dict:
    """samples/PROMPT_000000.png ...; the number runs through the whole category."""
    first = item.number * len(pictures)
    return {f"samples/{item.name}_{first + k:06}.png": picture for k, picture in enumerate(pictures)}


def dpg(paths, images) -> list[Item]:
    """Of the folder of prompts, one .txt file each, or dpg_bench.csv with its columns item_id and text; an item is
    called like its file, or by its id."""
    found = {}
    for path in map(Path, paths):
        texts = sorted(path.glob("*.txt")) if path.is_dir() else [path]
        for text in texts:
            found |= _table(text) if text.suffix == ".csv" else {part_of_path(text.stem): _prompt_file(text)}
    return [Item(name, prompt, i) for i, (name, prompt) in enumerate(found.items())]


def _prompt_file(path) -> str:
    try:
        prompt = path.read_text(encoding="utf-8-sig").strip()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}") from error
    if not prompt:
        raise UserError(f"{path}, line 1: the prompt is empty")
    return prompt


def _table(path) -> dict[str, str]:
    """{item_id: text} of a CSV file that has a row per question."""
    found, rows = {}, None
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            for row in rows:
                name, text = part_of_path(text_in(row, "item_id")), text_in(row, "text")
                if found.setdefault(name, text) != text:
                    raise BadRecord(f"item {name} has another text than before")
    except (UserError, csv.Error) as error:
        raise UserError(f"{path}, line {rows.line_num}: {error}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}") from error
    return found


def dpg_files(item: Item, pictures, source) -> dict:
    """NAME.png: the pictures as a grid of two columns."""
    width, height = pictures[0].size
    grid = Image.new("RGB", (2 * width, 2 * height))
    for k, picture in enumerate(pictures):
        grid.paste(picture, (k % 2 * width, k // 2 * height))
    return {f"{item.name}.png": grid}


def wise(paths, images) -> list[Item]:
    """Of one or several arrays of {"prompt_id", "Prompt", ...}."""
    names = Names()

    def parse(_, entry):
        number = entry.get("prompt_id")
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise BadRecord("'prompt_id' is no whole number")
        return Item(names.new(str(number)), text_in(entry, "Prompt"))

    return [item for path in paths for item in entries.read(path, list, parse)]


def flat_files(item: Item, pictures, source) -> dict:
    """NAME.png"""
    return {f"{item.name}.png": pictures[0]}

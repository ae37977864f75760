"""The layouts of benchmarks that ask for edits of pictures: as drawn.py has those of prompts."""

from pathlib import Path

from janus_jax.data import records
from janus_jax.data.records import BadRecord, json_object, path_in, text_in
from janus_jax.layouts import entries
from janus_jax.layouts.item import Item, Names, part_of_path, picture_file


def pie_bench(paths, images) -> list[Item]:
    """Of mapping_file.json: {id: {"image_path", "editing_instruction", ...}}. images: the folder annotation_images;
    None: that beside the file. Brackets around words are taken out of the instruction."""
    found, names = [], Names()
    for path in map(Path, paths):
        folder = images or path.parent / "annotation_images"

        def parse(_, entry, folder=folder):
            source = picture_file(path_in(entry, "image_path", folder))
            name = names.new(source.relative_to(folder).as_posix())
            instruction = text_in(entry, "editing_instruction").replace("[", "").replace("]", "")
            return Item(name, instruction, source=source)

        found += entries.read(path, dict, parse)
    return found


def pie_bench_files(item: Item, pictures, source) -> dict:
    """annotation_images/ and the source's own path."""
    return {f"annotation_images/{item.name}": pictures[0]}


def imgedit(paths, images) -> list[Item]:
    """Of basic_edit.json: {key: {"id", "prompt", "edit_type"}}; an id is a picture's path in the folder `images`, by
    default that of the file."""
    found, names = [], Names()
    for path in map(Path, paths):

        def parse(key, entry, folder=images or path.parent):
            text_in(entry, "edit_type")
            source = picture_file(path_in(entry, "id", folder))
            return Item(names.new(part_of_path(key)), text_in(entry, "prompt"), source=source)

        found += entries.read(path, dict, parse)
    return found


def gedit(paths, images) -> list[Item]:
    """Of JSON lines {"key", "task_type", "instruction", "instruction_language", "image"}; "image" is a picture's path
    in the folder `images`, by default that of the file."""
    found, names = [], Names()
    for path in map(Path, paths):

        def parse(line, folder=images or path.parent):
            entry = json_object(line)
            task, language, key = (
                part_of_path(text_in(entry, n)) for n in ("task_type", "instruction_language", "key")
            )
            if language not in ("en", "cn"):
                raise BadRecord(f"'instruction_language' is {language[:20]!r}: it must be en or cn")
            source = picture_file(path_in(entry, "image", folder))
            return Item(names.new(f"{task}/{language}/{key}"), text_in(entry, "instruction"), source=source)

        found += records.read(path, parse, records.Tally(path, 0.0))
    return found


def gedit_files(item: Item, pictures, source) -> dict:
    """fullset/TASK/LANGUAGE/KEY.png, and the source as KEY_SRCIMG.png."""
    name = f"fullset/{item.name}"
    return {f"{name}.png": pictures[0], f"{name}_SRCIMG.png": source}

"""Prompt files of the benchmarks, as their owners write them, of two or three items each."""

import json

import numpy as np
from PIL import Image

PAIR = [{"class": "bench", "count": 1, "color": "red"}, {"class": "dog", "count": 2, "position": ["left of", 0]}]
GENEVAL = [
    {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"},
    {"tag": "counting", "include": PAIR, "exclude": [{"class": "dog", "count": 3}], "prompt": "two dogs and a bench"},
    {"tag": "colors", "include": [{"class": "cow", "count": 1, "color": "red"}], "prompt": "a red cow"},
]
GENEVAL2 = [
    {"prompt": "four white cows ", "atom_count": 3, "vqa_list": [["How many cows?", "four"]], "skills": ["count"]},
    {"prompt": "a red cow", "atom_count": 2, "vqa_list": [["Is it red?", "Yes"]], "skills": ["attribute"]},
]
WISE = [
    {"Prompt": "The plant of Mother's Day", "Explanation": "a carnation", "Subcategory": "festival", "prompt_id": 1},
    {"Prompt": "The highest mountain", "Explanation": "Everest", "Subcategory": "place", "prompt_id": 401},
]
SIZES = [(20, 20), (30, 18), (16, 25)]  # of source pictures: width, height


def lines(path, entries):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def sources(folder, names):
    """Source pictures of SIZES."""
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        width, height = SIZES[i]
        pixels = np.random.default_rng(i).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)


def geneval(folder):
    return lines(folder / "evaluation_metadata.jsonl", GENEVAL)


def geneval2(folder):
    return lines(folder / "geneval2_data.jsonl", GENEVAL2)


def t2i_compbench(folder):
    path = folder / "color_val.txt"
    path.write_text("a red cow.\na blue dog and a bench\n")
    return path


def dpg(folder):
    path = folder / "prompts"
    path.mkdir()
    (path / "1.txt").write_text("A red pickup truck on the beach.\n")
    (path / "COCOval2014000000009378.txt").write_text("A kitchen.\nIt is green.")
    return path


def wise(folder):
    path = folder / "merge.json"
    path.write_text(json.dumps(WISE, indent=4))
    return path


def pie_bench(folder):
    names = {"000000000000": "0_random_140/000000000000.jpg", "111000000002": "1_change/1_artificial/111000000002.jpg"}
    sources(folder / "data" / "annotation_images", names.values())
    path = folder / "data" / "mapping_file.json"
    entries = {
        key: {
            "image_path": name,
            "original_prompt": "a [red] cow",
            "editing_prompt": "a [blue] cow",
            "editing_instruction": "make the [cow] blue",
            "editing_type_id": "0",
            "mask": [0, 5],
        }
        for key, name in names.items()
    }
    path.write_text(json.dumps(entries, indent=4))
    return path


def gedit(folder):
    sources(folder, ["a.png", "b.png"])
    entries = [
        {"key": "k1", "task_type": "color_alter", "instruction": "make it blue", "instruction_language": "en"},
        {"key": "k1", "task_type": "color_alter", "instruction": "\u53d8\u84dd", "instruction_language": "cn"},
        {"key": "k2", "task_type": "subject-add", "instruction": "add a dog", "instruction_language": "en"},
    ]
    pictures = ("a.png", "a.png", "b.png")
    return lines(folder / "gedit.jsonl", [e | {"image": p} for e, p in zip(entries, pictures, strict=True)])


def imgedit(folder):
    sources(folder, ["animal/1.jpg", "style/2.jpg", "style/3.jpg"])
    path = folder / "basic_edit.json"
    entries = {
        "1082": {"id": "animal/1.jpg", "prompt": "make the shell smooth", "edit_type": "adjust"},
        "673": {"id": "style/2.jpg", "prompt": "make it a woodcut", "edit_type": "style"},
        "5": {"id": "style/3.jpg", "prompt": "make it a mosaic", "edit_type": "style"},
    }
    path.write_text(json.dumps(entries, indent=4))
    return path

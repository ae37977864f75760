"""Damage to model folders, each by its seed: what does `load` make of it?

equal: what was loaded is what was there before; refused: a UserError of one line; traceback: anything else that was
raised; silent: another model was loaded. The last two are faults.
"""

import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import jax
import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "checkpoints"))

import test_formats as world  # noqa: E402

from janus_jax import convert
from janus_jax.checkpoints import loading, model_folder, published_config
from janus_jax.errors import UserError

COUNT = 150
# Of the wrong type or range wherever a number, a word, a list or an object may stand. (Another number of the right
# range is another model, which nobody can tell from damage.)
WRONG = (-1, "4", True, [], {}, [1, 0], float("nan"), float("inf"), 10**12, -0.5, "x" * 10_000, [[[]]], {"": None})
DEEP = 100_000


@contextlib.contextmanager
def folders():
    """{name: folder}: our own, our own sealed again after the damage, and the two published formats in shards."""
    towers = mock.patch.dict(published_config.SIGLIPS, siglip_tiny=world.CFG.siglip)
    with (
        tempfile.TemporaryDirectory() as scratch,
        towers,
        mock.patch.dict(published_config.VQS, {"VQ-tiny": world.CFG.vq}),
    ):
        root, found = Path(scratch), {}
        for name, rules in (("original", world.ORIGINAL), ("hf", world.HF)):
            found[name] = world.folder_of(root / name, name, world.tensors_of(rules), shards=2)
        found["own"] = found["sealed"] = root / "own"
        convert.main(["--src", str(found["original"]), "--dst", str(found["own"]), "--to", "own"])
        yield found


def loaded(folder):
    """All that a folder gives: bytes of the parameters by path, sizes, text, how to draw."""
    model, params, processor = loading.load(folder)
    flat = {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in jax.tree.leaves_with_path(params)}
    return flat, model.cfg, processor.encode("two red circles"), loading.drawn_with(folder)


def _places(value, path=()):
    """Every place in a JSON value."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        yield from _places(one, (*path, key))


def _changed(value, path, change):
    """A JSON value with change(container, key) made at a place."""
    copy = json.loads(json.dumps(value))
    inside = copy
    for key in path[:-1]:
        inside = inside[key]
    change(inside, path[-1])
    return copy


def wrong_value(rng, path):
    """A value of a JSON file becomes one of the wrong type or range."""
    content = json.loads(path.read_text())
    places = [place for place in _places(content) if place]
    place = places[rng.integers(len(places))]
    value = WRONG[rng.integers(len(WRONG))]
    current = content
    for key in place:
        current = current[key]
    value = 1 if value is True and isinstance(current, bool) else value  # true is right for a switch
    path.write_text(json.dumps(_changed(content, place, lambda inside, key: inside.__setitem__(key, value))))
    return f"{place} = {str(value)[:20]}"


def without_a_key(rng, path):
    """A key of a JSON file is gone."""
    content = json.loads(path.read_text())
    places = [place for place in _places(content) if place and isinstance(place[-1], str)]
    place = places[rng.integers(len(places))]
    path.write_text(json.dumps(_changed(content, place, lambda inside, key: inside.pop(key))))
    return f"without {place}"


def nonsense(rng, path):
    """A JSON file becomes something else."""
    words = ("", "[]", "null", "[" * DEEP, '{"a":' * DEEP, "NaN", "\ufeff{}", '"\ud800"')
    texts = (*(each.encode("utf-8", "surrogatepass") for each in words), b"{" + path.read_bytes())
    text = texts[rng.integers(len(texts))]
    path.write_bytes(text)
    return repr(text[:20])


def a_mark_before_it(rng, path):
    """A byte order mark before a JSON file is no damage."""
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def flipped(rng, path):
    """A bit of a file is another."""
    content = bytearray(path.read_bytes())
    place = int(rng.integers(len(content)))
    content[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)
    return f"a bit at {place}"


def truncated(rng, path):
    """The end of a file is gone."""
    content = path.read_bytes()
    length = int(rng.integers(len(content)))
    path.write_bytes(content[:length])
    return f"{length} bytes"


def longer(rng, path):
    """Something stands behind the end of a file."""
    path.write_bytes(path.read_bytes() + bytes(8))


def gone(rng, path):
    path.unlink()


def twice(rng, path):
    """A copy lies beside it: a stray file that nothing names."""
    shutil.copy(path, path.with_name("stray_" + path.name))


def header(rng, path):
    """An entry of a safetensors header is wrong."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    said = json.loads(content[8 : 8 + length])
    names = sorted(said.keys() - {"__metadata__"})
    name, other = (names[i] for i in rng.choice(len(names), 2, replace=False))
    entry, (first, last) = said[name], said[name]["data_offsets"]
    changes = (
        {"data_offsets": [first + 0.5, last]},
        {"data_offsets": [-8, last]},
        {"data_offsets": said[other]["data_offsets"]},
        {"data_offsets": [first, last + 8]},
        {"data_offsets": [last, first]},
        {"data_offsets": 10**30},
        {"shape": [-1, 2]},
        {"shape": [2**62, 4]},
        {"shape": "x"},
        {"shape": [*entry["shape"], 2]},
        {"dtype": "F99"},
        {"dtype": None},
        {"dtype": "I32"},
    )
    said[name] = {**entry, **changes[rng.integers(len(changes))]}
    text = json.dumps(said).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    return f"{name}: {said[name]}"


def not_finite(rng, path):
    """A number of a tensor is NaN or infinite. (The file is f32 throughout.)"""
    content = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    place = start + 4 * int(rng.integers((len(content) - start) // 4))
    content[place : place + 4] = np.float32(rng.choice([np.nan, np.inf, -np.inf])).tobytes()
    path.write_bytes(content)


JSON = (wrong_value, nonsense, a_mark_before_it, truncated, gone, twice)
TENSORS = (header, header, truncated, longer, gone, twice, nonsense)
ANY = (flipped, truncated, longer, gone, twice)


def _choices(name, folder):
    """[(file, what may be done to it)] of a kind of folder: only what can be told from another model."""
    if name == "own":  # whose manifest knows every bit
        return [(path, ANY) for path in sorted(folder.rglob("*")) if path.is_file()]
    if name == "sealed":  # as somebody wrote it
        config, params = folder / model_folder.CONFIG, folder / model_folder.PARAMS
        return [
            (config, (*JSON, without_a_key)),
            (config, (wrong_value,)),
            (params, TENSORS),
            (params, (not_finite,)),
        ]
    small = [folder / each for each in ("config.json", "preprocessor_config.json")]
    index, tokenizer = folder / "model.safetensors.index.json", folder / "tokenizer.json"
    files = [(path, tuple(each for each in JSON if each is not gone)) for path in small]
    files += [(index, (*(each for each in JSON if each is not gone), without_a_key)), (tokenizer, (truncated, gone))]
    return files + [(path, TENSORS) for path in sorted(folder.glob("*.safetensors"))]


def outcome(seed: int, found: dict[str, Path], expected: dict) -> tuple[str, str]:
    """(what came of it, what was done) of one damage."""
    rng = np.random.default_rng(seed)
    name = sorted(found)[seed % len(found)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(shutil.copytree(found[name], Path(scratch) / "model"))
        choices = _choices(name, folder)
        path, damages = choices[rng.integers(len(choices))]
        damage = damages[rng.integers(len(damages))]
        what = f"{seed}: {name}/{path.relative_to(folder)}: {damage.__name__} {damage(rng, path) or ''}"
        if name == "sealed":
            model_folder.seal(folder)
        try:
            return ("equal" if loaded(folder) == expected[name] else "silent"), what
        except UserError as error:
            return ("refused" if "\n" not in str(error) else "traceback"), f"{what}: {error}"
        except Exception as error:  # whatever it is, a user would see it
            return "traceback", f"{what}: {error!r:.300}"


def trials(done: Callable[[int], bool], count: int = COUNT):
    """(seed, result, what) of the trials that are not done."""
    with folders() as found:
        expected = {name: loaded(folder) for name, folder in found.items()}
        for seed in range(count):
            if not done(seed):
                yield seed, *outcome(seed, found, expected)

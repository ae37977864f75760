"""The command that draws a benchmark's pictures: every suite's tree, stops, processes."""

import json
import subprocess
import sys
import zlib
from pathlib import Path

import benchmark_files
import numpy as np
import pytest
from benchmark_files import GENEVAL, SIZES, WISE
from commands import environment, refused
from PIL import Image
from tiny import MODEL, params, processor
from trajectories import draw as introspected
from trajectories import shot

from janus_jax import export_benchmark
from janus_jax.checkpoints import loading
from janus_jax.layouts import export, tree
from janus_jax.layouts.table import SUITES
from janus_jax.sampling.defaults import sampling_of
from janus_jax.sampling.edit import placed_back
from janus_jax.sampling.rollout import Trajectory
from janus_jax.sequences.request import Request

pytestmark = pytest.mark.usefixtures("quick_compiles")

ROOT = Path(__file__).parent.parent
BESIDE = {"reproduction/card.json", "reproduction/card.md"}


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(export_benchmark.loading, "load", lambda *given: (MODEL, params(), processor()))


def by_hand(prompt, sample):
    """A trajectory that nobody drew: of two rounds, or of one where the sample is odd."""
    seed = 10 * zlib.crc32(prompt.encode()) + sample
    return [shot(False, seed), shot(True, seed + 5)] if sample % 2 == 0 else [shot(True, seed)]


@pytest.fixture
def stub(monkeypatch):
    """The sampler in place of which `by_hand` draws: what is tested is where pictures go."""

    class Part(list):
        def trajectories(self, processor):
            return [Trajectory(request, sample, by_hand(request.prompt, sample)) for request, sample in self]

    monkeypatch.setattr(export_benchmark, "rollouts", lambda model, params, processor, work, *_, **__: [Part(work)])


def run(suite, prompts, out, *flags, rounds=2):
    line = ("--suite", suite, "--prompts", prompts, "--checkpoint", "shapes-rl", "--out", out, "--batch", 8)
    export_benchmark.main([str(arg) for arg in (*line, "--rounds", rounds, "--max-reason-tokens", 4, *flags)])


def content(folder):
    """{path: bytes} of all files."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def opened(folder, name):
    with Image.open(folder / name) as picture:
        picture.load()
    return picture


TREES = {
    "geneval": {
        f"{i:05}/{name}" for i in range(3) for name in ["metadata.jsonl", *(f"samples/000{k}.png" for k in range(4))]
    },
    "geneval2": {"images/0000.png", "images/0001.png", "image_paths.json"},
    "t2i_compbench": {f"samples/a red cow._{k:06}.png" for k in range(10)}
    | {f"samples/a blue dog and a bench_{k:06}.png" for k in range(10, 20)},
    "dpg": {"1.png", "COCOval2014000000009378.png"},
    "wise": {"1.png", "401.png"},
    "pie_bench": {
        "annotation_images/0_random_140/000000000000.jpg",
        "annotation_images/1_change/1_artificial/111000000002.jpg",
    },
    "gedit": {
        f"fullset/{name}{end}.png"
        for name in ("color_alter/en/k1", "color_alter/cn/k1", "subject-add/en/k2")
        for end in ("", "_SRCIMG")
    },
    "imgedit": {"1082.png", "673.png", "5.png"},
}
CHUNKS = {"geneval": 2, "t2i_compbench": 2}


@pytest.mark.parametrize("suite", SUITES)
def test_the_tree_of_a_suite(suite, stub, tmp_path):
    run(suite, getattr(benchmark_files, suite)(tmp_path), tmp_path / "out")
    parts = {f"reproduction/trajectories/{i:05}.jsonl" for i in range(CHUNKS.get(suite, 1))}
    assert set(content(tmp_path / "out")) == TREES[suite] | BESIDE | parts
    told = [json.loads(line) for part in sorted(parts) for line in (tmp_path / "out" / part).read_text().splitlines()]
    card = json.loads((tmp_path / "out" / "reproduction/card.json").read_text())
    assert len(told) == len({(one["item"], one["sample"]) for one in told}) and card["picture"] == "final"
    assert len(told) % card["pictures per prompt"] == 0
    assert all(1 <= len(one["rounds"]) <= 2 and one["rounds"][one["final"]] for one in told)


def test_the_pictures_are_those_of_introspect(tmp_path):
    """Final ones in one tree, first ones in the other."""
    prompts = benchmark_files.lines(tmp_path / "two.jsonl", GENEVAL[:2])
    run("geneval", prompts, tmp_path / "out", "--first-out", tmp_path / "first", "--seed=3")
    sampling = sampling_of("shapes-rl", max_reason_tokens=4)
    drawn = introspected([entry["prompt"] for entry in GENEVAL[:2]], samples=4, rounds=2, sampling=sampling, seed=3)
    for i, t in enumerate(drawn):
        name = f"{i // 4:05}/samples/{i % 4:04}.png"
        np.testing.assert_array_equal(opened(tmp_path / "out", name), t.rounds[t.final].image)
        np.testing.assert_array_equal(opened(tmp_path / "first", name), t.rounds[0].image)
    assert {t.final for t in drawn} == {0, 1}, "the two trees must differ somewhere"


def test_geneval_holds_the_lines_of_its_file(stub, tmp_path):
    prompts = benchmark_files.geneval(tmp_path)
    run("geneval", prompts, tmp_path / "out")
    for i, line in enumerate(prompts.read_text().splitlines()):
        held = (tmp_path / "out" / f"{i:05}" / "metadata.jsonl").read_text()
        assert held == line + "\n" and json.loads(held) == GENEVAL[i]


def test_what_scorers_take_from_names_and_places(stub, tmp_path):
    """T2I-CompBench's numbers, DPG's tiles, GenEval 2's map, WISE's ids: the pictures are those of the prompts."""

    def same(picture, prompt, sample=0):
        np.testing.assert_array_equal(picture, by_hand(prompt, sample)[-1].image)

    for suite in ("t2i_compbench", "dpg", "geneval2", "wise"):
        run(suite, getattr(benchmark_files, suite)(tmp_path), tmp_path / suite)
    for k in range(10):
        name = f"t2i_compbench/samples/a blue dog and a bench_{10 + k:06}.png"
        same(opened(tmp_path, name), "a blue dog and a bench", k)
    grid = opened(tmp_path, "dpg/COCOval2014000000009378.png")
    for k, (x, y) in enumerate([(0, 0), (16, 0), (0, 16), (16, 16)]):
        same(grid.crop((x, y, x + 16, y + 16)), "A kitchen.\nIt is green.", k)
    paths = json.loads((tmp_path / "geneval2/image_paths.json").read_text())
    assert list(paths) == [entry["prompt"] for entry in benchmark_files.GENEVAL2]
    for prompt, path in paths.items():
        same(opened(tmp_path / "geneval2", path), prompt)
    for entry in WISE:
        same(opened(tmp_path, f"wise/{entry['prompt_id']}.png"), entry["Prompt"])


def test_edits_lie_in_their_place_at_the_size_of_the_source(stub, tmp_path):
    run("imgedit", benchmark_files.imgedit(tmp_path), tmp_path / "imgedit")
    for key, name, size in zip(("1082", "673", "5"), ("animal/1", "style/2", "style/3"), SIZES, strict=True):
        edited, source = opened(tmp_path / "imgedit", f"{key}.png"), opened(tmp_path, f"{name}.jpg")
        assert edited.size == source.size == size
        edge = np.asarray(source)[0, 0], np.asarray(edited)[0, 0]
        assert size[0] == size[1] or (edge[0] == edge[1]).all(), "what the model does not see stays"
    run("gedit", benchmark_files.gedit(tmp_path), tmp_path / "gedit")
    for name in ("color_alter/en/k1", "subject-add/en/k2"):
        source = opened(tmp_path, {"1": "a.png", "2": "b.png"}[name[-1]])
        kept = opened(tmp_path / "gedit/fullset", f"{name}_SRCIMG.png")
        np.testing.assert_array_equal(kept, source)
        assert opened(tmp_path / "gedit/fullset", f"{name}.png").size == source.size
    run("pie_bench", benchmark_files.pie_bench(tmp_path), tmp_path / "pie")
    result = opened(tmp_path / "pie", "annotation_images/0_random_140/000000000000.jpg")
    assert (result.format, result.size) == ("JPEG", (20, 20))
    lines = (tmp_path / "pie/reproduction/trajectories/00000.jsonl").read_text().splitlines()
    assert {json.loads(line)["prompt"] for line in lines} == {"make the cow blue"}


def test_an_edit_is_that_of_the_model(tmp_path):
    run("gedit", benchmark_files.gedit(tmp_path), tmp_path / "gedit", rounds=1)
    source, told = opened(tmp_path, "a.png"), "make it blue"
    (t,) = introspected([Request(told, source)], 1, 1, sampling=sampling_of("shapes-rl", max_reason_tokens=4))
    edited = opened(tmp_path / "gedit/fullset", "color_alter/en/k1.png")
    np.testing.assert_array_equal(edited, placed_back(source, t.rounds[0].image))
    assert (np.asarray(edited) != np.asarray(source)).any()


@pytest.mark.parametrize("suite", ["geneval", "gedit"])
def test_killed_and_started_again(suite, stub, tmp_path, monkeypatch):
    """At each file, before it has its name: what is there is whole, and in the end all is, to the byte."""
    prompts = getattr(benchmark_files, suite)(tmp_path)
    run(suite, prompts, tmp_path / "whole")
    whole = content(tmp_path / "whole")
    named, last = Path.replace, len(whole) - 1
    for stop in range(1, last, 3):
        out, files = tmp_path / f"killed{stop}", []

        def dying(path, target, files=files, stop=stop):
            files.append(target)
            if len(files) == stop:
                raise KeyboardInterrupt
            return named(path, target)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(tree.Path, "replace", dying)
            patch.setattr(tree.os, "getpid", lambda: 1)
            run(suite, prompts, out)
        left = {name: data for name, data in content(out).items() if "reproduction/.partial" not in name}
        assert len(left) == stop - 1 and left.items() <= whole.items()
        run(suite, prompts, out)
        assert content(out) == whole


def test_what_is_there_is_not_drawn_again_and_what_was_lost_is(stub, tmp_path, monkeypatch):
    prompts = benchmark_files.wise(tmp_path)
    prompts.write_text(json.dumps([WISE[0], WISE[1] | {"Prompt": "a line\u2028separator"}]))
    run("wise", prompts, tmp_path / "out")
    whole = content(tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(export_benchmark, "rollouts", None)
        run("wise", prompts, tmp_path / "out")
        assert content(tmp_path / "out") == whole
    (tmp_path / "out" / "401.png").unlink()
    run("wise", prompts, tmp_path / "out")
    assert content(tmp_path / "out") == whole


def test_two_processes_draw_the_tree_of_one(stub, tmp_path, monkeypatch):
    prompts = benchmark_files.geneval(tmp_path)
    run("geneval", prompts, tmp_path / "whole")
    whole = content(tmp_path / "whole")
    numbers = []

    def share(suite, parts, trees, draw, mine):
        mine = range(len(numbers), len(parts), 2)
        numbers.append(list(mine))
        return export.export(suite, parts, trees, draw, mine)

    monkeypatch.setattr(export_benchmark, "export", share)
    run("geneval", prompts, tmp_path / "shared")
    assert content(tmp_path / "shared").items() < whole.items()
    run("geneval", prompts, tmp_path / "shared")
    assert numbers == [[0], [1]] and content(tmp_path / "shared") == whole


@pytest.mark.slow  # two processes load jax, and each compiles
def test_two_real_processes_draw_the_tree_of_one(tmp_path):
    loading.save(tmp_path / "tiny", MODEL, params(), processor(), drawn_with={"temperature": 0.7})
    prompts = benchmark_files.geneval(tmp_path)
    line = ["--suite", "geneval", "--prompts", prompts, "--checkpoint", tmp_path / "tiny", "--batch", 4]
    line += ["--rounds", 1, "--max-reason-tokens", 4]
    for count in (1, 2):
        command = [sys.executable, "-m", "janus_jax.export_benchmark", *line, "--out", tmp_path / str(count)]
        pod = ["launch/local_pod.sh", str(count), *map(str, command)]
        run = subprocess.run(pod, env=environment(tmp_path), cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert run.returncode == 0, run.stderr
    assert content(tmp_path / "1") == content(tmp_path / "2")
    assert len(content(tmp_path / "1")) == 3 * 5 + 2 + 3


def test_another_folder_and_other_settings_are_refused(stub, tmp_path):
    prompts = benchmark_files.wise(tmp_path)
    flags = ("--suite", "wise", "--prompts", prompts, "--checkpoint", "shapes-rl", "--out", tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert "holds something else: choose another folder" in refused(export_benchmark.main, *flags)
    assert content(tmp_path / "out") == {"mine.txt": b"mine"}
    (tmp_path / "out" / "mine.txt").unlink()
    run("wise", prompts, tmp_path / "out")
    line = refused(export_benchmark.main, *flags, "--seed", 7)
    assert "drawn otherwise (rounds was 2, is 3; seed was 0, is 7; " in line
    prompts.write_text(json.dumps(WISE[:1]))
    assert "prompts sha256 was" in refused(export_benchmark.main, *flags)
    prompts = benchmark_files.imgedit(tmp_path)
    edits = ("--suite", "imgedit", "--prompts", prompts, *flags[4:6], "--out", tmp_path / "edits")
    run("imgedit", prompts, tmp_path / "edits")
    Image.new("RGB", (9, 9)).save(tmp_path / "style" / "2.jpg")
    assert "sources sha256 was" in refused(export_benchmark.main, *edits)
    assert "leave --images out" in refused(export_benchmark.main, *flags, "--images", tmp_path)
    assert "--first-out is the folder of --out" in refused(
        export_benchmark.main, *flags, "--first-out", tmp_path / "out"
    )


def test_the_card_says_how(stub, tmp_path):
    run("wise", benchmark_files.wise(tmp_path), tmp_path / "out", "--cfg", 3, "--image-top-k", 9, "--seed", 5)
    card = json.loads((tmp_path / "out/reproduction/card.json").read_text())
    expected = {"suite": "wise", "picture": "final", "rounds": 2, "seed": 5, "pictures per prompt": 1}
    expected |= {"cfg_weight": 3.0, "temperature": 0.5, "image_top_k": 9, "image_top_p": None, "max_reason_tokens": 4}
    expected |= {"template": processor().generation_prompt("{prompt}"), "side of a drawn picture": 16, "batch": 8}
    assert {name: card[name] for name in expected} == expected
    assert {"checkpoint sha256", "prompts sha256", "commit", "code", "jax", "device"} <= card.keys()
    text = (tmp_path / "out/reproduction/card.md").read_text()
    assert "| cfg_weight | `3.0` |" in text and "| image_top_p | not truncated |" in text

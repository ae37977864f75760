"""The page of a folder's pictures: whole, escaped, made of relative links."""

import json
from urllib.parse import unquote

import numpy as np
from PIL import Image
from test_report import Tags
from trajectories import made

from janus_jax.results import evaluated, index
from janus_jax.results.gallery import LARGE, Gallery, enlarged
from janus_jax.sampling.rollout import Trajectory
from janus_jax.sequences import images
from janus_jax.sequences.request import Request

EVIL = '<script>alert("x")</script> & دائرة'


def links(tags):
    return [unquote(attributes[key]) for _, attributes in tags.seen for key in ("src", "href") if key in attributes]


def gallery(out, *trajectories):
    made_here = Gallery(out, {"checkpoint": EVIL, "seed": 0})
    made_here.add(trajectories, 0)
    return made_here


def test_a_gallery_s_page(tmp_path):
    again = Trajectory(Request(EVIL), 1, made(False, True).rounds)
    gallery(tmp_path, made(True), again).finish("title")
    page = (tmp_path / "index.html").read_text()
    tags = Tags(page)
    assert tags.open == [] and not any(tag == "script" for tag, _ in tags.seen)
    assert page.count("&lt;script&gt;alert") >= 2 and 'dir="auto"' in page
    assert all((tmp_path / link).is_file() for link in links(tags)) and "storyboard.png" in links(tags)
    pictures = [attributes for tag, attributes in tags.seen if tag == "img"]
    assert [each["src"] for each in pictures] == [f"images/000{n}.png" for n in ("0_0_0", "1_1_0", "1_1_1")]
    assert all(each["loading"] == "lazy" for each in pictures)
    frames = [attributes["class"] for tag, attributes in tags.seen if tag == "figure"]
    assert frames == ["said-yes chosen", "said-no", "said-yes chosen"]


def test_it_grows_and_goes_on(tmp_path):
    """It is there before the end, and after a stop it has what was there before."""
    gallery(tmp_path, made(True))
    assert (
        "1 picture of 1 prompt." in (tmp_path / "index.html").read_text() and not (tmp_path / "storyboard.png").exists()
    )
    gallery(tmp_path, Trajectory(Request("a circle"), 0, made(True).rounds))
    assert "2 pictures of 2 prompts" in (tmp_path / "index.html").read_text()


def test_small_pictures_are_enlarged_beside_their_own(tmp_path):
    shot = made(True).rounds[0].image
    gallery(tmp_path, made(True))
    own, large = (images.read(tmp_path / folder / "0000_0_0.png") for folder in ("images", "enlarged"))
    np.testing.assert_array_equal(own, shot)
    assert large.size == (LARGE, LARGE)
    np.testing.assert_array_equal(np.asarray(large)[8::16, 8::16], shot)
    np.testing.assert_array_equal(np.asarray(large)[::16, 15::16], shot)
    assert enlarged(Image.new("RGB", (48, 48))).size == (288, 288)
    assert enlarged(Image.new("RGB", (384, 384))) is None and enlarged(Image.new("RGB", (LARGE, 20))) is None


def test_a_source_lies_beside_its_edits(tmp_path):
    source = Image.new("RGB", (2000, 1000), "red")
    request = Request("make it blue", source)
    made_here = Gallery(tmp_path / "out", {"checkpoint": "x"})
    made_here.add([Trajectory(request, 0, made(True).rounds)], 0, {id(source): "/elsewhere/a.png"})
    assert "sources/0000.png" in links(Tags((tmp_path / "out" / "index.html").read_text()))
    assert images.read(tmp_path / "out" / "sources" / "0000.png").size == (512, 256)


def test_an_evaluation_s_page_has_the_verifier_s_word(tmp_path):
    outcome = {"prompt": EVIL, "sample": 2, "right": [False, True], "verdicts": [False, True], "p_yes": [0.1, 0.9]}
    outcome["reasons"] = ["", ""]
    outcomes = [{**outcome, "final": 1}, {**outcome, "final": 1, "sample": 3}]
    evaluated.keep(tmp_path, {EVIL: 7}, [Trajectory(Request(EVIL), 2, made(False, True).rounds)], outcomes[:1])
    assert outcomes[0]["images"] == ["0007_2_0.png", "0007_2_1.png"]
    json.dumps(outcomes)
    page = evaluated.write_page(tmp_path, "title", {"seed": 0}, outcomes).read_text()  # the other has no pictures
    tags = Tags(page)
    assert [link for link in links(tags)] == ["0007_2_0.png"] * 2 + ["0007_2_1.png"] * 2
    assert page.index("verifier: wrong") < page.index("verifier: right") and "2 pictures" in page
    assert evaluated.write_page(tmp_path / "none", "title", {}, outcomes[1:]) is None


def test_a_prompt_keeps_its_number():
    """Also where further prompts stand before it now: else their pictures would take the place of its own."""
    outcomes = [
        {"prompt": "b", "images": ["0001_0_0.png"]},
        {"prompt": "a", "images": ["0000_3_0.png"]},
        {"prompt": "c"},
    ]
    assert evaluated.numbers(["x", "a", "y", "b", "c"], outcomes) == {"x": 2, "a": 0, "y": 3, "b": 1, "c": 4}
    assert evaluated.numbers(["x", "a"], []) == {"x": 0, "a": 1}


def test_thousands_of_pictures_are_one_page():
    shots = [index.Shot("images/a b.png", True, 0.5, "Yes")]
    page = index.page("t", {}, [index.Story(f"{n // 4}", n % 4, shots, 0) for n in range(8000)])
    assert page.count('loading="lazy"') == 8000 and len(page) < 8e6 and 'src="images/a%20b.png"' in page
    assert page.count("<section>") == 2000 and "content-visibility: auto" in page

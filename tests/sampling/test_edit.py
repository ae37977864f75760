"""Editing: turns, the source's place, and what is refused."""

import numpy as np
import pytest
from PIL import Image
from tiny import MODEL, params, processor

from janus_jax.errors import UserError
from janus_jax.sampling.density import Sampling
from janus_jax.sampling.edit import edit, placed_back
from janus_jax.sampling.introspect import introspect
from janus_jax.sequences.request import Request

pytestmark = pytest.mark.usefixtures("quick_compiles")
SAMPLING = Sampling(cfg_weight=3.0, max_reason_tokens=4)


def source(seed=0, size=(16, 16)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def edits(instruction, image=None, **settings):
    settings = {"samples": 2, "rounds": 1, "sampling": SAMPLING, "seed": 3, **settings}
    return edit(MODEL, params(), processor(), image or source(), instruction, **settings)


def test_a_second_turn_edits_the_first_one_s_result():
    first = edits("make the circle blue")
    second = edits(["make the circle blue", "remove the cross"])
    for before, after in zip(first, second, strict=True):
        assert after.prompt == "remove the cross"
        picture = before.rounds[before.final].image
        np.testing.assert_array_equal(after.request.source, picture)
        (alone,) = introspect(MODEL, params(), processor(), [Request("remove the cross", picture)], 1, 1, SAMPLING, 3)
        np.testing.assert_array_equal(after.rounds[0].codes, alone.rounds[0].codes)


def test_the_source_and_the_instruction_matter():
    codes = [t.rounds[0].codes for t in edits("make the circle blue")]
    assert (codes[0] != codes[1]).any()
    for other in (edits("remove the cross"), edits("make the circle blue", source(1))):
        assert any((t.rounds[0].codes != mine).any() for t, mine in zip(other, codes, strict=True))
    np.testing.assert_array_equal(edits("make the circle blue", samples=1)[0].rounds[0].codes, codes[0])


def test_the_square_goes_back_where_it_was_cut_from():
    wide, square = source(size=(20, 10)), source(1, (10, 10))
    placed = np.asarray(placed_back(wide, square))
    np.testing.assert_array_equal(placed[:, 5:15], square)
    np.testing.assert_array_equal(placed[:, :5], np.asarray(wide)[:, :5])
    np.testing.assert_array_equal(placed[:, 15:], np.asarray(wide)[:, 15:])
    tall = np.asarray(placed_back(source(size=(10, 21)), square))
    np.testing.assert_array_equal(tall[5:15], square)


def test_of_a_wide_picture_the_centre_is_edited():
    """It is also what the model judges the edit beside."""
    wide = source(size=(20, 10))
    (mine,) = edits("make the circle blue", wide, samples=1)
    np.testing.assert_array_equal(mine.request.source, np.asarray(wide)[:, 5:15])
    (same,) = edits("make the circle blue", Image.fromarray(np.asarray(wide)[:, 5:15]), samples=1)
    assert (mine.rounds[0].codes == same.rounds[0].codes).all() and mine.rounds[0].p_yes == same.rounds[0].p_yes


@pytest.mark.parametrize(
    "instruction, settings, words",
    [("  ", {}, "instruction is empty"), ([], {}, "no instruction"), ("x", {"samples": 0}, "at least 1, not 0")],
)
def test_what_is_refused(instruction, settings, words):
    with pytest.raises(UserError, match=words):
        edits(instruction, **settings)

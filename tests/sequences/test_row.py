"""Rows by hand, and collated into batches."""

import numpy as np
import pytest
from tiny import EOS, MODEL, NO, PAD, YES, processor

from janus_jax.sequences.batch import CODE, SEEN, TEXT, padding
from janus_jax.sequences.row import Row, collate


def test_ids_of_the_tiny_tokenizer():
    special = processor().special
    assert (special.eos, special.pad, special.yes, special.no) == (EOS, PAD, YES, NO)
    assert processor().tokenizer.size == MODEL.cfg.llama.vocab_size


def drawn_rows():
    first = Row()
    first.add_text([1, 3, 21, 6], uncond=[1, 3, 3, 6])  # a PAD in a prompt is real
    first.add_codes([9, 8], group=2)
    first.add_text([7, 30])
    first.add_codes([5, 4], group=3, advantage=[0.5, -1.5], old_logps=[0, -2.0])
    second = Row()
    second.add_text([1, 6])
    second.add_seen(np.full((2, 2, 3), 0.25, np.float32), 3)
    second.add_text([11, 40, 2], [1, 2, 2], verdict=[True, False, False])
    return first, second


def joined(row, field):
    return np.concatenate([getattr(piece, field) for piece in row.pieces]).tolist()


def kinds(row):
    return [piece.kind for piece in row.pieces for _ in piece.ids]


def trained(row, kind):
    targets = row.targets(kind)
    return list(zip(*(targets[name].tolist() for name in ("at", "ids", "group")), strict=True))


def test_a_row_is_what_was_appended():
    first, second = drawn_rows()
    assert len(first) == 10 and len(second) == 8
    assert joined(first, "ids") == [1, 3, 21, 6, 9, 8, 7, 30, 5, 4]
    assert joined(first, "uncond") == [1, 3, 3, 6, 9, 8, 7, 30, 5, 4]
    assert kinds(first) == [TEXT] * 4 + [CODE] * 2 + [TEXT] * 2 + [CODE] * 2
    assert kinds(second) == [TEXT] * 2 + [SEEN] * 3 + [TEXT] * 3
    # (position before the token, token, group)
    assert trained(first, CODE) == [(3, 9, 2), (4, 8, 2), (7, 5, 3), (8, 4, 3)]
    assert trained(second, TEXT) == [(4, 11, 1), (5, 40, 2), (6, 2, 2)]
    assert first.targets(TEXT) == second.targets(CODE) == {}
    # where a piece of targets does not say what another says, it is zero
    assert first.targets(CODE)["advantage"].tolist() == [0, 0, 0.5, -1.5]


def test_targets_that_are_trained_again():
    row, _ = drawn_rows()
    row.train_again(CODE, 5)
    assert trained(row, CODE) == [(3, 9, 2), (4, 8, 2), (7, 5, 3), (8, 4, 3), (3, 9, 5), (4, 8, 5)]
    assert len(row) == 10  # at the same positions


def test_collate_by_hand():
    batch = collate(
        drawn_rows(),
        11,
        3,
        text_targets=4,
        code_targets=4,
        pictures=2,
        fields=("advantage", "old_logps", "verdict"),
        guided=True,
    )
    assert batch.ids.tolist() == [
        [3, 1, 3, 21, 6, 9, 8, 7, 30, 5, 4],
        [3, 3, 3, 1, 6, 0, 0, 0, 11, 40, 2],
    ]
    assert batch.uncond_ids.tolist() == [
        [3, 1, 3, 3, 6, 9, 8, 7, 30, 5, 4],
        [3, 3, 3, 1, 6, 0, 0, 0, 11, 40, 2],
    ]
    drawn = [".ttttccttcc", "...ttsssttt"]
    letters = {"t": TEXT, "c": CODE, "s": SEEN}
    assert batch.mask.tolist() == [[c != "." for c in row] for row in drawn]
    assert [[k for k, m in zip(*pair, strict=True) if m] for pair in zip(batch.kind, batch.mask, strict=True)] == [
        [letters[c] for c in row if c != "."] for row in drawn
    ]
    # a guidance PAD (id 3, real) is not a padding PAD (id 3, masked)
    assert batch.mask[0, 2] and batch.uncond_ids[0, 2] == 3 and not batch.mask[0, 0]

    assert batch.codes.at.tolist() == [[4, 5, 8, 9], [0, 0, 0, 0]]
    assert batch.codes.ids.tolist() == [[9, 8, 5, 4], [0, 0, 0, 0]]
    assert batch.codes.weight.tolist() == [[1, 1, 1, 1], [0, 0, 0, 0]]
    assert batch.codes.group.tolist() == [[2, 2, 3, 3], [0, 0, 0, 0]]
    assert batch.codes.advantage.tolist() == [[0, 0, 0.5, -1.5], [0, 0, 0, 0]]
    assert batch.codes.old_logps.tolist() == [[0, 0, 0, -2.0], [0, 0, 0, 0]]
    assert batch.text.at.tolist() == [[0, 0, 0, 0], [7, 8, 9, 0]]
    assert batch.text.ids.tolist() == [[0, 0, 0, 0], [11, 40, 2, 0]]
    assert batch.text.weight.tolist() == [[0, 0, 0, 0], [1, 1, 1, 0]]
    assert batch.text.verdict.tolist() == [[False] * 4, [True, False, False, False]]
    assert batch.text.ref_logps is None
    # every target's token stands right after `at`
    for targets in (batch.codes, batch.text):
        live = targets.weight > 0
        after = np.take_along_axis(batch.ids, np.minimum(targets.at + 1, 10), axis=1)
        np.testing.assert_array_equal(after[live], targets.ids[live])

    assert batch.pixels.shape == (2, 2, 2, 2, 3)
    assert (batch.pixels[1, 0] == 0.25).all() and not batch.pixels[0].any() and not batch.pixels[1, 1].any()
    assert {x.dtype.name for x in (batch.ids, batch.kind, batch.codes.at, batch.codes.group)} == {"int32"}


def test_the_share_of_padding():
    short, long = Row(), Row()
    short.add_text([1, 6])
    long.add_text([1, 6, 7, 8])
    assert padding([collate([short, long], 5, 3), collate([long], 10, 3)]) == pytest.approx(10 / 20)


def test_a_hole_keeps_its_positions_and_is_seen_by_nobody():
    row = Row()
    row.add_text([1, 6])
    row.add_hole([2, 2])
    row.add_text([7])
    batch = collate([row], 6, 3)
    assert len(row) == 5 and batch.ids.tolist() == [[3, 1, 6, 2, 2, 7]]
    assert batch.mask.tolist() == [[False, True, True, False, False, True]]


def test_collate_leaves_out_what_is_not_asked_for():
    row = Row()
    row.add_text([1, 6])
    row.add_codes([2, 3], group=0)
    batch = collate([row], 4, 0, code_targets=2)
    assert batch.text is None and batch.pixels is None and batch.uncond_ids is None and batch.positions is None
    assert batch.codes.advantage is None
    assert batch.mask.all()


def test_collate_refuses_what_does_not_fit():
    first, second = drawn_rows()
    with pytest.raises(ValueError, match="10 positions and 0 pictures does not fit 9 and 0"):
        collate([first], 9, 0, code_targets=4)
    with pytest.raises(ValueError, match="8 positions and 1 pictures does not fit 9 and 0"):
        collate([second], 9, 0, text_targets=4)
    with pytest.raises(ValueError, match="4 targets, more than 3"):
        collate([first], 10, 0, code_targets=3)
    with pytest.raises(ValueError, match="float32 in a batch of pictures of uint8"):
        collate([second], 10, 0, text_targets=4, pictures=1, levels=True)
    with pytest.raises(ValueError, match="3 targets, more than 2"):
        collate([second], 10, 0, text_targets=2, pictures=1)

"""Questions in stage 1: rows with pictures made for them, none of what evaluation holds out."""

import numpy as np
from tiny import OTHER, SEES, codes, grammar, picture, processor

from janus_jax.data import cache, mixture
from janus_jax.sequences.batch import DESCRIBE, TEXT
from janus_jax.shapes import questions, verify


def groups(side=96):
    """One prompt with one picture; questions take the side of the pictures alone from it."""
    return cache.Groups(
        prompts=["a circle"],
        start=np.array([0, 1]),
        codes=np.array([codes(0)], np.int32),
        pixels=np.resize(np.rint((picture(0) + 1) * 127.5), (1, side, side, 3)).astype(np.uint8),
        score=np.array([1.0], np.float32),
        reasons=["Yes."],
        captions=["circle."],
    )


def test_a_row_asks_about_the_picture_that_it_shows():
    maker, tokenizer = mixture.RowMaker(groups(), grammar()), processor().tokenizer
    kinds = set()
    for seed in range(60):
        row = maker.make(np.random.default_rng(seed), "answer", 0)
        (pixels,) = row.pictures
        assert pixels.shape == (96, 96, 3) and pixels.dtype == np.uint8
        targets = row.targets(TEXT)
        assert set(targets["group"]) == {DESCRIBE} and targets["ids"][-1] == processor().special.eos
        said = processor().decode(targets["ids"])
        asked = processor().decode(np.concatenate([piece.ids for piece in row.pieces[2:-1]]))
        # the same as what the verifier reads from the picture would have asked and answered
        reading = verify.read(pixels)
        rng = np.random.default_rng(0)
        asks = ((kind, questions.ask(rng, reading, kind)) for kind in questions.KINDS for _ in range(300))
        same = [(kind, one) for kind, one in asks if one and one.text in asked and one.answer == said]
        assert same and not same[0][1].held_out, (asked, said)
        kinds.add(same[0][0])
        assert len(row.pieces[1].ids) == SEES and len(tokenizer.encode(said, bos=False)) < questions.LONGEST_ANSWER
    assert kinds == set(questions.KINDS)


def test_questions_are_of_the_model_s_world():
    maker, words = mixture.RowMaker(groups(72), grammar(), world=OTHER), set()
    for seed in range(40):
        row = maker.make(np.random.default_rng(seed), "answer", 0)
        assert verify.read(row.pictures[0], OTHER).unclear == 0
        words |= set(processor().decode(np.concatenate([piece.ids for piece in row.pieces[2:]])).split())
    assert {"pentagon", "pentagons"} & words and "teal" in words


def test_a_bucket_has_room_for_answers():
    maker = mixture.RowMaker(groups(), grammar())
    steps = mixture.Steps(maker, [mixture.Bucket(90, (mixture.Kind("answer", 0, 4),))], 0, 2)
    (batch,), (other,) = steps[0], steps[1]
    assert maker.longest < questions.LONGEST_ANSWER == batch.text.ids.shape[1]
    assert batch.pixels.shape == (4, 1, 96, 96, 3) and (batch.text.weight.sum(1) > 1).all()
    assert (batch.ids != other.ids).any() and np.array_equal(steps[0][0].ids, batch.ids)

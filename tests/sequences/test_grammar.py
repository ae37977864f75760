"""Every role's sequence, drawn by hand: ids of the reference, and what stands between them.

A row is written as a list: a text token is its id, a code c(id), a position of a seen picture "s".
"""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from tiny import MODEL, SEES, I, processor

from janus_jax.errors import UserError
from janus_jax.sequences import tokens
from janus_jax.sequences.batch import CODE, SEEN, TEXT
from janus_jax.sequences.grammar import Grammar
from janus_jax.sequences.request import Request
from janus_jax.sequences.row import Row, collate

GOLDEN = Path(__file__).parents[1] / "golden"
PROTOCOL = json.loads((GOLDEN / "protocol.json").read_text())
CAPTION, PROMPT = PROTOCOL["t2i"]["caption"], PROTOCOL["t2i"]["ids"]
THINK, NEXT, EDITING = PROTOCOL["self_check"]["ids"], PROTOCOL["regenerate"]["ids"], PROTOCOL["editing"]
# before the source, and after it
EDIT = EDITING["ids_before_image"], EDITING["ids_after_image"] + EDITING["instruction_ids"] + EDITING["suffix_ids"]
YES, NO, EOS, PAD = (PROTOCOL["special_ids"][name] for name in ("Yes", "No", tokens.EOS, tokens.PAD))
PICTURE = np.zeros((2, 2, 3), np.float32)  # takes two positions; painted ones take three
CODES, OTHERS = [5, 6, 7], [8, 9, 10]


@functools.cache
def grammar():
    return Grammar(tokens.Tokenizer.from_folder(GOLDEN), codes=3, seen=2)


def c(codes):
    return [("c", code) for code in codes]


def drawn(row, field="ids"):
    marks = {TEXT: int, CODE: lambda i: ("c", int(i)), SEEN: lambda _: "s"}
    return [marks[piece.kind](i) for piece in row.pieces for i in getattr(piece, field)]


def asked(request=None, source=None, **settings):
    row = Row()
    grammar().ask(row, request or Request(CAPTION), source, **settings)
    return row


def edit():
    return Request(EDITING["instruction"], source="a picture")  # the grammar is given what is encoded of it


def test_the_sizes_of_a_model():
    made = Grammar.of(MODEL.cfg, processor().tokenizer)
    assert (made.codes, made.seen, made.special) == (I, SEES, processor().special)


def test_draw():
    row = asked()
    grammar().draw(row, CODES, 4, old_logps=[-1, -2, -3])
    assert drawn(row) == PROMPT + c(CODES)
    assert PROMPT[0] == grammar().special.bos and PROMPT[-1] == grammar().special.begin_image
    got = row.targets(CODE)
    assert (
        got["ids"].tolist() == CODES and got["group"].tolist() == [4] * 3 and got["old_logps"].tolist() == [-1, -2, -3]
    )
    assert got["at"].tolist() == [len(PROMPT) - 1, len(PROMPT), len(PROMPT) + 1]
    assert row.targets(TEXT) == {}


def test_what_guidance_takes_away():
    """Of a prompt all but its first and last token; of an edit the instruction alone. The codes stay."""
    row = asked()
    grammar().draw(row, CODES)
    nothing = [PROMPT[0], *[PAD] * (len(PROMPT) - 2), PROMPT[-1]]
    assert drawn(row, "uncond") == nothing + c(CODES)
    assert grammar().unconditional(Request(CAPTION))[0].tolist() == nothing
    row = asked(edit(), CODES)
    grammar().draw(row, OTHERS)
    kept = EDITING["ids_after_image"] + [PAD] * len(EDITING["instruction_ids"]) + EDITING["suffix_ids"]
    assert drawn(row, "uncond") == EDIT[0] + c(CODES) + kept + c(OTHERS)
    # asking twice gives the same: nothing was changed in place
    assert drawn(asked()) == PROMPT and grammar().prompt(Request(CAPTION))[0].tolist() == PROMPT


def test_a_prompt_that_training_drops():
    row = asked(dropped=True)
    assert drawn(row) == drawn(row, "uncond") == [PROMPT[0], *[PAD] * (len(PROMPT) - 2), PROMPT[-1]]
    row = asked(edit(), CODES, dropped=True)
    assert drawn(row) == drawn(row, "uncond") and drawn(row).count(PAD) == len(EDITING["instruction_ids"])


def test_the_reference_s_batch_of_prompts():
    """Padding on the left; the PADs of the unconditional row are attended, those of the padding are not."""
    golden = np.load(GOLDEN / "llm.npz")
    prompts = ("a sketch of a yellow vase on the left of a silver pizza", "five silver umbrellas in the kitchen")
    ids, mask = golden["input_ids"], golden["attention_mask"].astype(bool)
    batch = collate([asked(Request(prompt)) for prompt in prompts], ids.shape[1], PAD, guided=True)
    np.testing.assert_array_equal(batch.ids, ids)
    np.testing.assert_array_equal(batch.mask, mask)
    for row, given, keep in zip(batch.uncond_ids, ids, mask, strict=True):
        real = given[keep]
        assert row[keep].tolist() == [real[0], *[PAD] * (len(real) - 2), real[-1]] and (row[~keep] == PAD).all()


@pytest.mark.parametrize("source, shown", [(CODES, c(CODES)), (PICTURE, ["s", "s"])], ids=["painter", "judge"])
def test_edit(source, shown):
    row = asked(edit(), source)
    assert drawn(row) == EDIT[0] + shown + EDIT[1]
    assert len(row.pictures) == (source is PICTURE)
    grammar().draw(row, OTHERS, 0)
    assert drawn(row) == EDIT[0] + shown + EDIT[1] + c(OTHERS)
    assert row.targets(CODE)["ids"].tolist() == OTHERS  # the source is context


def test_judge():
    row = asked()
    grammar().look(row, PICTURE)
    assert drawn(row) == PROMPT + ["s", "s"] + THINK
    assert row.targets(TEXT) == {}
    grammar().say(row, [NO, 40, EOS], [1, 2, 2], verdict=[True, False, False])
    assert drawn(row) == PROMPT + ["s", "s"] + THINK + [NO, 40, EOS]
    got, first = row.targets(TEXT), len(PROMPT) + 2 + len(THINK)
    assert got["at"].tolist() == [first - 1, first, first + 1]
    assert got["ids"].tolist() == [NO, 40, EOS] and got["group"].tolist() == [1, 2, 2]
    assert got["verdict"].tolist() == [True, False, False]


@pytest.mark.parametrize("said", [[NO, 40, EOS], [NO, 40, 41]], ids=["ended", "cut"])
def test_look_again(said):
    """One end of text stands between a reason and the next picture, whether the reason ended by itself or was cut."""
    row = asked()
    for reason in (said, [YES, EOS]):
        if len(row) > len(PROMPT):
            grammar().look_again(row, said)
        grammar().look(row, PICTURE)
        grammar().say(row, reason, 0)
    words = [i for i in said if i != EOS]
    see = ["s", "s", *THINK]
    assert drawn(row) == PROMPT + see + words + NEXT + see + [YES, EOS]
    assert NEXT[0] == EOS and drawn(row).count(EOS) == 2
    assert row.targets(TEXT)["ids"].tolist() == [*said, YES, EOS]
    # after a cache, into which a sampled end of text was not fed
    after = Row()
    grammar().look_again(after)
    assert drawn(after) == NEXT


@pytest.mark.parametrize("said", [[NO, 40, EOS], [NO, 40]], ids=["ended", "cut"])
def test_redraw(said):
    row = asked()
    grammar().draw(row, CODES, 0)
    grammar().redraw(row, np.array(said))
    grammar().draw(row, OTHERS, 3)
    assert drawn(row) == PROMPT + c(CODES) + THINK + [NO, 40] + NEXT + c(OTHERS)
    got = row.targets(CODE)
    assert got["group"].tolist() == [0] * 3 + [3] * 3 and got["ids"].tolist() == CODES + OTHERS
    assert got["at"][3] == len(row) - 4
    # the words are in both rows, conditional and unconditional
    assert drawn(row, "uncond")[len(PROMPT) :] == drawn(row)[len(PROMPT) :]


def test_answer():
    expected = PROTOCOL["understanding"]
    question = expected["conversation"][0]["content"].removeprefix("<image_placeholder>\n")
    row = Row()
    grammar().answer(row, [PICTURE], f" {question}\n")
    assert drawn(row) == expected["ids_before_image"] + ["s", "s"] + expected["ids_after_image"]
    assert len(row.pictures) == 1


@pytest.mark.parametrize("system", [tokens.SYSTEM_PROMPT, ""])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_pictures_come_before_the_question(count, system):
    row, encode = Row(), grammar().tokenizer.encode
    grammar().answer(row, [PICTURE + n for n in range(count)], "What is it?", system)
    special = grammar().special
    begin, end = [special.begin_image], [special.end_image]
    opening = encode(f"{system}\n\n<|User|>: " if system else "<|User|>: ")
    asks = "What is it?\n\n<|Assistant|>:"
    if count == 0:
        expected = encode((f"{system}\n\n" if system else "") + f"<|User|>: {asks}")
    elif count == 1:
        expected = opening + begin + ["s", "s"] + end + encode(f"\n{asks}", bos=False)
    else:
        between = end + encode("\n", bos=False) + begin
        expected = opening + begin + ["s", "s"] + between + ["s", "s"] + end + encode(f"\n{asks}", bos=False)
    assert drawn(row) == expected
    assert [picture.max() for picture in row.pictures] == [0, 1][:count]  # in their order


def test_describe():
    """Stage 1's captions: an answer without the system's sentence."""
    row, encode = Row(), grammar().tokenizer.encode
    grammar().answer(row, [PICTURE], "What is in the picture?", system="")
    row.add_text([40, 41, EOS], 4)
    special, asks = grammar().special, "\nWhat is in the picture?\n\n<|Assistant|>:"
    opening = encode("<|User|>: ") + [special.begin_image, "s", "s", special.end_image]
    assert drawn(row) == opening + encode(asks, bos=False) + [40, 41, EOS]
    assert row.targets(TEXT)["ids"].tolist() == [40, 41, EOS]


def test_what_is_refused():
    with pytest.raises(UserError, match="question is empty"):
        grammar().answer(Row(), [PICTURE], "  ")
    for request, words in (
        (Request(" "), "prompt is empty"),
        (Request("", source="a picture"), "instruction is empty"),
    ):
        with pytest.raises(UserError, match=words):
            grammar().ask(Row(), request, CODES)


# How long it gets

LONGEST, ENDED = [NO, *range(40, 44)], [NO, *range(40, 43), EOS]  # five words


def painted(request, source, rounds, reason):
    row = asked(request, source)
    for turn in range(rounds):
        if turn:
            before = len(row)
            grammar().redraw(row, reason)
            assert len(row) - before <= grammar().longest_redraw(5)
            assert (len(row) - before == grammar().longest_redraw(5)) == (reason is LONGEST)
        grammar().draw(row, CODES)
    return len(row)


def judged(request, source, rounds, reason):
    row = Row()
    for turn in range(rounds):
        before = len(row)
        grammar().look_again(row, reason) if turn else grammar().ask(row, request, source)
        asks = None if turn else len(row)
        grammar().look(row, PICTURE)
        assert len(row) - before == grammar().longest_look(asks) - (turn > 0 and reason is ENDED)
        grammar().say(row, reason)
    return len(row)


@pytest.mark.parametrize("rounds", [1, 2, 3])
@pytest.mark.parametrize("sources", [0, 1])
def test_the_longest_rows(rounds, sources):
    """Neither a position too few nor one too many."""
    request = edit() if sources else Request(CAPTION)
    prompt = sum(map(len, grammar().prompt(request)))
    assert prompt == (len(EDIT[0]) + len(EDIT[1]) if sources else len(PROMPT))
    sizes = prompt, rounds, len(LONGEST), sources
    assert painted(request, CODES, rounds, LONGEST) == grammar().longest_painted(*sizes)
    assert judged(request, PICTURE, rounds, LONGEST) == grammar().longest_judged(*sizes)
    # a reason that ended by itself needs one less wherever something follows it
    assert painted(request, CODES, rounds, ENDED) == grammar().longest_painted(*sizes) - (rounds - 1)
    assert judged(request, PICTURE, rounds, ENDED) == grammar().longest_judged(*sizes) - (rounds - 1)

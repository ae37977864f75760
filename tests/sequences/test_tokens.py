"""Templates and ids, to the character and to the id of the reference; both kinds of tokenizer."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from janus_jax.errors import UserError
from janus_jax.sequences import tokens
from janus_jax.sequences.processor import Processor
from janus_jax.shapes.vocabulary import train_tokenizer

GOLDEN = Path(__file__).parents[1] / "golden"
PROTOCOL = json.loads((GOLDEN / "protocol.json").read_text())
SPECIAL_IDS = PROTOCOL["special_ids"]


@functools.cache
def golden() -> tokens.Tokenizer:
    """The reference's byte-level BPE, from a folder that holds a tokenizer.json."""
    return tokens.Tokenizer.from_folder(GOLDEN)


@functools.cache
def world() -> tokens.Tokenizer:
    """A small sentencepiece tokenizer of the embedded world."""
    return train_tokenizer(sentences=400)


BOTH = pytest.mark.parametrize("make", [golden, world])


def test_special_ids_are_read_from_the_tokenizer():
    got = golden().special
    assert got == tokens.SpecialIds(
        bos=SPECIAL_IDS[tokens.BOS],
        eos=SPECIAL_IDS[tokens.EOS],
        pad=SPECIAL_IDS[tokens.PAD],
        begin_image=SPECIAL_IDS[tokens.BEGIN_IMAGE],
        end_image=SPECIAL_IDS[tokens.END_IMAGE],
        yes=SPECIAL_IDS["Yes"],
        no=SPECIAL_IDS["No"],
    )
    assert golden().special != world().special
    for token in tokens.SPECIAL:
        assert golden().id(token) == SPECIAL_IDS[token]


def test_generation_prompt_and_ids():
    t2i = PROTOCOL["t2i"]
    assert tokens.generation_prompt(t2i["caption"]) == t2i["prompt"]
    assert tokens.prompt_ids(golden(), t2i["caption"]) == t2i["ids"]
    # the same with spaces and newlines around it: prompts are stripped, as the reference's second conversation shows
    stray = PROTOCOL["multi_turn"]["conversation"][0]["content"]
    assert stray != t2i["caption"]
    assert tokens.prompt_ids(golden(), stray) == t2i["ids"]
    assert tokens.prompt_ids(golden(), f"\n{t2i['caption']}\t ") == t2i["ids"]
    # stage 1 uses the same string for its first two tasks
    for name in ("task0_prompt", "task1_prompt"):
        assert tokens.generation_prompt(t2i["caption"]) == PROTOCOL["sft"][name]


@pytest.mark.parametrize("text, name", [(tokens.THINK, "self_check"), (tokens.NEXT, "regenerate")])
def test_what_stands_between_the_pictures(text, name):
    assert text == PROTOCOL[name]["text"]
    assert golden().encode(text, bos=False) == PROTOCOL[name]["ids"]
    special = golden().special
    assert PROTOCOL["self_check"]["ids"][0] == special.end_image
    assert PROTOCOL["regenerate"]["ids"][0] == special.eos and PROTOCOL["regenerate"]["ids"][-1] == special.begin_image


def test_answers_of_stage_1():
    # what is trained after the second piece: the answer and EOS; EOS is a token of its own, not a spelling
    answer = PROTOCOL["sft"]["task1_answer"]
    ids = golden().encode(answer, bos=False)
    assert ids[0] == golden().special.yes and ids[-1] == golden().special.eos
    assert golden().decode(ids) == answer.removesuffix(tokens.EOS)
    assert PROTOCOL["sft"]["task1_after_image"] == tokens.THINK
    between = PROTOCOL["sft"]["task2_after_image"]
    assert between.startswith(tokens.THINK + "No") and between.endswith(tokens.NEXT)


def test_editing_strings_and_ids():
    editing = PROTOCOL["editing"]
    before, after = tokens.edit_prompt(f"  {editing['instruction']}\n")
    assert before == editing["before_image"]
    assert after == editing["after_image"] + editing["instruction"] + editing["suffix"]
    pictures = "{576 x <image_placeholder>}"
    assert before + pictures + after == editing["formatted"]
    assert golden().encode(before) == editing["ids_before_image"]
    pieces = editing["ids_after_image"] + editing["instruction_ids"] + editing["suffix_ids"]
    assert golden().encode(after, bos=False) == pieces


def test_understanding_before_and_after_the_picture():
    expected = PROTOCOL["understanding"]
    question = expected["conversation"][0]["content"].removeprefix("<image_placeholder>\n")
    processor = Processor(golden(), 384, 384)
    text = processor.chat_prompt(question)
    assert text == expected["formatted"]
    assert tokens.SYSTEM_PROMPT == expected["system_prompt"]
    # the placeholder becomes begin-of-image, the picture, end-of-image
    ids = processor.encode(text)
    place = ids.index(expected["image_id"])
    assert [*ids[:place], processor.special.begin_image] == expected["ids_before_image"]
    assert [processor.special.end_image, *ids[place + 1 :]] == expected["ids_after_image"]
    assert expected["image_id"] == golden().id(tokens.PLACEHOLDER)
    assert processor.chat_prompt(question, 2).count(tokens.PLACEHOLDER) == 2
    assert tokens.PLACEHOLDER not in processor.chat_prompt(question, 0)


def test_the_unconditional_row():
    llm = np.load(GOLDEN / "llm.npz")  # the generation prompts of the reference, padded and masked
    ids = PROTOCOL["t2i"]["ids"]
    pad = golden().special.pad
    row = tokens.unconditional(ids, pad)
    assert row == [ids[0], *[pad] * (len(ids) - 2), ids[-1]]
    assert row[0] == golden().special.bos and row[-1] == golden().special.begin_image
    assert row is not ids and ids[1] != pad
    # ... and the reference's batch: padding on the left, the PADs of the row are attended, those of the padding are not
    for expected, mask in zip(llm["input_ids"], llm["attention_mask"], strict=True):
        real = expected[mask == 1].tolist()
        got, keep = tokens.left_pad([real, tokens.unconditional(real, pad)], pad, len(expected))
        np.testing.assert_array_equal(got[0], expected)
        np.testing.assert_array_equal(keep, np.stack([mask, mask]).astype(bool))
        assert (got[1][keep[1]][1:-1] == pad).all()


def test_left_pad_by_hand():
    ids, mask = tokens.left_pad([[5, 6, 7], [8], []], 0, 4)
    assert ids.tolist() == [[0, 5, 6, 7], [0, 0, 0, 8], [0, 0, 0, 0]]
    assert mask.tolist() == [[False, True, True, True], [False, False, False, True], [False] * 4]
    assert ids.dtype == np.int32 and mask.dtype == bool
    # a PAD inside a row is real; without a length, the longest row's
    ids, mask = tokens.left_pad([[1, 0, 0, 2], [0, 2]], 0)
    assert ids.tolist() == [[1, 0, 0, 2], [0, 0, 0, 2]]
    assert mask.tolist() == [[True] * 4, [False, False, True, True]]
    with pytest.raises(ValueError, match="3 tokens does not fit 2"):
        tokens.left_pad([[1, 2, 3]], 0, 2)


# Both tokenizers


@BOTH
def test_bos_exactly_once(make):
    tokenizer = make()
    bos = tokenizer.special.bos
    ids = tokens.prompt_ids(tokenizer, "two red circles")
    assert ids[0] == bos and ids.count(bos) == 1
    assert tokenizer.encode("two red circles", bos=False).count(bos) == 0
    assert tokenizer.encode("two red circles") == [bos, *tokenizer.encode("two red circles", bos=False)]
    assert ids[-1] == tokenizer.special.begin_image


@BOTH
def test_special_tokens_in_a_text_are_single_ids(make):
    tokenizer = make()
    everything = "".join(tokens.SPECIAL)
    assert tokenizer.encode(everything, bos=False) == [tokenizer.id(token) for token in tokens.SPECIAL]
    assert len({tokenizer.id(token) for token in (*tokens.SPECIAL, "Yes", "No")}) == 10
    assert max(tokenizer.id(token) for token in tokens.SPECIAL) < tokenizer.size
    for word, expected in (("Yes", tokenizer.special.yes), ("No", tokenizer.special.no)):
        assert tokenizer.encode(f"{word}, it is.", bos=False)[0] == expected
    with pytest.raises(UserError, match="no token '<nobody>'"):
        tokenizer.id("<nobody>")


@BOTH
def test_text_comes_back_without_its_special_tokens(make):
    tokenizer = make()
    reason = "No, it shows two red circles instead of three."
    for text in (reason, tokens.THINK_SENTENCE, tokens.NEXT_SENTENCE, " a\n\nb  c", "ähm: 図"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert tokenizer.decode(np.array(tokenizer.encode(text + tokens.EOS))) == text
    # a joint of pieces encoded one by one is the whole
    prompt = tokens.generation_prompt("two red circles")
    pieces = tokenizer.encode(prompt) + tokenizer.encode(tokens.THINK, bos=False)
    assert pieces == tokenizer.encode(prompt + tokens.THINK)


@BOTH
def test_empty_and_overlong_prompts_are_refused_in_one_line(make):
    for empty in ("", "  \n\t"):
        with pytest.raises(UserError, match="the prompt is empty: say what to draw"):
            tokens.prompt_ids(make(), empty)
    # the first prompt that is too long, and the last that is not
    lengths = [len(make().encode(tokens.generation_prompt("red" + " red" * n))) for n in range(300)]
    longest = max(n for n in range(300) if lengths[n] <= 200)
    assert len(tokens.prompt_ids(make(), "red" + " red" * longest)) <= 200
    with pytest.raises(UserError, match="tokens, more than 200: shorten it") as error:
        tokens.prompt_ids(make(), "red\n" + " red" * (longest + 1))
    assert "\n" not in str(error.value)


@BOTH
def test_a_tokenizer_survives_its_file(make, tmp_path):
    tokenizer = make()
    (tmp_path / tokenizer.file_name).write_bytes(tokenizer.content)
    again = tokens.Tokenizer.from_folder(tmp_path)
    prompt = tokens.generation_prompt("two red circles")
    assert again.encode(prompt) == tokenizer.encode(prompt) and again.special == tokenizer.special


def test_folders_without_a_tokenizer_or_with_a_broken_one(tmp_path):
    with pytest.raises(UserError, match="holds no tokenizer: expected one of tokenizer.model, tokenizer.json"):
        tokens.Tokenizer.from_folder(tmp_path)
    for name in tokens.Tokenizer.FILES:
        with pytest.raises(UserError, match=f"{name} cannot be read") as error:
            tokens.Tokenizer(name, b"\xff\x00 nonsense")
        assert "\n" not in str(error.value)


def test_the_methods_sentences_are_one_piece_in_the_small_world():
    # At 36 codes per picture, spelling them out would be a fifth of every sequence.
    assert len(world().encode(tokens.THINK, bos=False)) == 3
    assert len(world().encode(tokens.NEXT, bos=False)) == 4

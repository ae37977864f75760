"""Trains the embedded world's sentencepiece tokenizer, with the special tokens of Janus-Pro."""

import io

import numpy as np
import sentencepiece

from janus_jax.sequences.tokens import EDIT_REQUEST, NEXT_SENTENCE, SPECIAL, THINK_SENTENCE, Tokenizer
from janus_jax.shapes import reasons, scene, text, verify
from janus_jax.shapes.world import SHIPPED, World


def train_tokenizer(seed: int = 0, sentences: int = 3000, world: World = SHIPPED) -> Tokenizer:
    """A BPE tokenizer in which the world's words are single pieces; a plural may be two. The method's fixed sentences
    are one piece each: at 36 codes per picture, spelling them out would be a fifth of every sequence."""
    rng = np.random.default_rng(seed)
    lines = [EDIT_REQUEST, text.QUESTION] * 40
    for i in range(sentences):
        prompt = text.train_prompt(rng, world=world)
        ask = text.parse(prompt, world)
        shown = (scene.compose if i % 3 == 0 else scene.near_miss)(rng, ask, world)
        reading = verify.Reading(shown.items, unclear=int(i % 20 == 0))
        reason = reasons.reason(rng, ask, verify.Reading(shown.items), world)
        lines += [f": {prompt}", reason, reasons.caption(reading, world)]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="bpe",
        vocab_size=world.pieces,
        character_coverage=1.0,
        # text must come back as it went in: newlines and leading spaces are part of the templates
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        byte_fallback=True,
        control_symbols=list(SPECIAL),
        user_defined_symbols=["\n", "\n\n", "Yes", "No"]
        + [sentence.replace(" ", "▁") for sentence in (THINK_SENTENCE, NEXT_SENTENCE)],
        unk_id=0,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return Tokenizer("tokenizer.model", model.getvalue())

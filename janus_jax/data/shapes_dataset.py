"""The embedded world as a TFDS dataset, `shapes`: prompts, each with right and wrong pictures, as ArrayRecord.

builder = Shapes(config="second", data_dir="runs/data", file_format="array_record"); builder.download_and_prepare()
source = builder.as_data_source("train")          # grain reads it; TensorFlow is not needed
"""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from janus_jax.shapes import reasons, render, scene, text, verify
from janus_jax.shapes.world import SHIPPED, WORLDS

TRAIN_PROMPTS, FREE_PROMPTS = 4000, 5000
RIGHT, WRONG = 3, 3


def _png(pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


class Shapes(tfds.core.GeneratorBasedBuilder):
    """Splits: train (4000 prompts) and train_free (5000 freely composed prompts); configurations: the worlds by name.

    Every prompt has three right pictures and three near misses, each with the verifier's score and a truthful reason.
    Pictures are handed over as PNG bytes: TFDS would need TensorFlow to encode arrays.
    """

    VERSION = tfds.core.Version("1.4.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in WORLDS]
    RELEASE_NOTES = {
        "1.4.0": "A configuration for each world; no pictures of held-out prompts.",
        "1.3.0": "Freely composed prompts: free shapes, free colours, placements of coloured shapes.",
        "1.2.0": "Prompts with free shapes.",
        "1.1.0": "One ground for all pictures; more prompts and pictures.",
        "1.0.0": "First version.",
    }

    @property
    def world(self):
        return WORLDS[self.builder_config.name]

    def _info(self):
        side = self.world.side
        picture = {
            "image": tfds.features.Image(shape=(side, side, 3), encoding_format="png"),
            "score": tfds.features.Scalar(np.float32),
            "reason": tfds.features.Text(),
        }
        return self.dataset_info_from_configs(
            description="Prompts about a few coloured shapes, with right and wrong pictures, by janus_jax.shapes.",
            features=tfds.features.FeaturesDict(
                {
                    "prompt": tfds.features.Text(),
                    "category": tfds.features.Text(),
                    "pictures": tfds.features.Sequence(picture),
                }
            ),
        )

    def _split_generators(self, download_manager):
        rng = np.random.default_rng(7)
        categories = [text.CATEGORIES[i % len(text.CATEGORIES)] for i in range(TRAIN_PROMPTS)]
        prompts = [text.train_prompt(rng, category, self.world) for category in categories]
        free = [text.free_prompt(rng, world=self.world) for _ in range(FREE_PROMPTS)]
        return {
            "train": examples(prompts, 1, self.world),
            "train_free": examples(free, 3, self.world),
        }

    def _generate_examples(self, prompts, seed):  # TFDS wants it to be there
        return examples(prompts, seed, self.world)


def examples(prompts, seed: int, world=SHIPPED):
    """(number, example) of each training prompt; the n-th is a function of the seed, n and the prompt."""
    for index, prompt in enumerate(prompts):
        rng = np.random.default_rng([seed, index])
        ask = text.parse(prompt, world)
        pictures = []
        while len(pictures) < RIGHT + WRONG:
            compose = scene.compose if len(pictures) < RIGHT else scene.near_miss
            pixels = render.render(compose(rng, ask, world), rng=rng, world=world)
            reading = verify.read(pixels, world)
            # what evaluation holds out is not shown in training pictures
            if verify.matches(ask, reading) != (len(pictures) < RIGHT) or text.shows_held_out(reading, world):
                continue
            pictures.append(
                {
                    "image": _png(pixels),
                    "score": verify.score(ask, reading),
                    "reason": reasons.reason(rng, ask, reading, world),
                }
            )
        yield index, {"prompt": prompt, "category": ask.category, "pictures": pictures}

"""The embedded world as a TFDS dataset, `shapes`: prompts, each with right and wrong pictures, as ArrayRecord.

builder = Shapes(data_dir="runs/data", file_format="array_record"); builder.download_and_prepare()
source = builder.as_data_source("train")          # grain reads it; TensorFlow is not needed
"""

import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from janus_jax.shapes import render, scene, text, verify

SIDE = 48
TRAIN_PROMPTS, FREE_PROMPTS, HELD_OUT_PER_CATEGORY = 4800, 6400, 100
RIGHT, WRONG = 4, 3


def _png(pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


class Shapes(tfds.core.GeneratorBasedBuilder):
    """Splits: train (4800 prompts), train_free (6400 freely composed prompts), held_out (100 of each category).

    Every prompt has four right pictures and three near misses, each with the verifier's score and a truthful reason.
    Pictures are handed over as PNG bytes: TFDS would need TensorFlow to encode arrays.
    """

    VERSION = tfds.core.Version("1.3.0")
    RELEASE_NOTES = {
        "1.3.0": "Freely composed prompts: free shapes, free colours, placements of coloured shapes.",
        "1.2.0": "Prompts with free shapes.",
        "1.1.0": "One ground for all pictures; more prompts and pictures.",
        "1.0.0": "First version.",
    }

    def _info(self):
        picture = {
            "image": tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="png"),
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
        prompts = [text.train_prompt(rng, category) for category in categories]
        free = [text.free_prompt(rng) for _ in range(FREE_PROMPTS)]
        return {
            "train": self._generate_examples(prompts, 1),
            "train_free": self._generate_examples(free, 3),
            "held_out": self._generate_examples(text.held_out_prompts(HELD_OUT_PER_CATEGORY), 2),
        }

    def _generate_examples(self, prompts, seed):
        for index, prompt in enumerate(prompts):
            rng = np.random.default_rng([seed, index])
            ask = text.parse(prompt)
            pictures = []
            while len(pictures) < RIGHT + WRONG:
                compose = scene.compose if len(pictures) < RIGHT else scene.near_miss
                pixels = render.render(compose(rng, ask), SIDE, rng)
                reading = verify.read(pixels)
                # what evaluation holds out is not shown in training pictures
                if verify.matches(ask, reading) != (len(pictures) < RIGHT) or (
                    seed != 2 and text.shows_held_out(reading)
                ):
                    continue
                pictures.append(
                    {
                        "image": _png(pixels),
                        "score": verify.score(ask, reading),
                        "reason": text.reason(rng, ask, reading),
                    }
                )
            yield index, {"prompt": prompt, "category": ask.category, "pictures": pictures}

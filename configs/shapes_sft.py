r"""Stage 1 on the embedded world: draw, judge, redraw, describe, answer, edit and judge edits in one mixture, from the
base model, on rendered pictures and on the base model's own drawings.

    python -m janus_jax.cache_codes --task edit --edits 4000 --tokenizer runs/vq/model --out runs/edits.npz
    python -m janus_jax.label_drawings --checkpoint runs/base --cache runs/cache.npz runs/cache_free.npz \
        --out runs/drawn.npz
    python -m janus_jax.train_sft --config configs/shapes_sft.py --workdir runs/sft1

then the judge alone, from easy categories to all, the mixture again with drawings of its own and with fresh pictures
(config.draws), edits from easy ones to all, and the mixture once more, see launch/train_shapes.sh.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.preset = "shapes"
    config.model = ConfigDict()  # entries that replace the preset's, as in --config.model.llama.layers=2
    config.init = "runs/base"  # an own checkpoint to go on from; empty: fresh parameters around config.vq
    config.vq = "runs/vq/model"  # a picture tokenizer, or a model with one; not looked at where there is an init
    config.cache = "runs/drawn.npz"  # labelled pictures and their codes
    config.edits = "runs/edits.npz"  # the same of edits, which buckets may ask for; several: with commas
    config.draws = ""  # right pictures that `draw` learns from, in place of config.cache
    config.categories = ()  # of the prompts in config.cache, which are used; () = all; not of config.draws
    config.mesh = (-1, 1, 1)  # data, fsdp, tensor
    config.frozen = (r"vq/.*",)  # the tiny SigLIP is trained too
    # (length, ((task, earlier rounds, rows per step), ...)); 26 tokens of prompt: the few longer ones are left out
    config.buckets = (
        (62, (("draw", 0, 24),)),
        (84, (("judge", 0, 16), ("describe", 0, 4), ("answer", 0, 4))),
        (126, (("redraw", 1, 8), ("edit", 0, 6))),
        (142, (("judge", 1, 4), ("judge_edit", 0, 4))),
        (190, (("redraw", 2, 4), ("judge", 2, 2), ("edit", 1, 2))),
    )
    config.micro_batches = 1  # parts that a step's batch is cut into
    config.shares = (10, 10, 15, 2, 6)  # of the loss: draw, judge, redraw as released; describe and answer, edit
    config.verdict_share = 0.8  # of the judge's loss: its Yes or No, the rest is the reason's
    config.drop_prompt = 0.1  # share of drawings that are learnt without their prompt, for guidance
    # share of redrawn pictures that are the wrong one with its faults mended and the rest kept, not any right one
    config.mended = 0.8
    config.scrambled = 0.0  # share of edits and mended redraws some of whose codes become random ones
    config.judged_right = 0.8  # the least score of a picture that is judged Yes
    # what commands will draw with
    config.cfg_weight = 1.0  # guidance; so small a model does better without
    config.temperature = 0.5  # a code drawn wrong spoils a picture
    config.steps = 2200
    config.decay_steps = 0  # of the cosine; 0 = steps
    config.optimizer = "muon"  # or "adamw"
    config.moments = "float32"  # how they are kept between steps; "bfloat16" halves their memory
    config.gradients = "float32"  # "bfloat16" halves theirs, where the model computes in it
    config.learning_rate = 7e-4  # after `warmup` steps; then a cosine to the final one
    config.final_learning_rate = 2e-5
    config.warmup = 30
    config.weight_decay = 0.05  # of all but norms and biases
    config.log_every = 50  # steps between two lines of metrics
    config.save_every = 500  # steps between two checkpoints
    config.writers = ("tensorboard",)  # beside metrics.jsonl; also "wandb", or module:name of your own
    return config

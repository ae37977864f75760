"""Stage 1 of Janus-Pro-7B on the released weights and label files, with the paper's settings (batch 128, 50,000 steps).
docs/slices.md says which slices it has been compiled for. Not trained: that needs the data and the chips.

    python -m janus_jax.compile --config configs/janus_pro_7b_sft.py --topology v5e-16,v5p-8
    python -m janus_jax.convert --src Janus-Pro-7B --dst runs/janus7b --to own
    python -m janus_jax.cache_labels --checkpoint runs/janus7b --labels labels.jsonl --images FOLDER \\
        --out runs/labels7b.npz
    python -m janus_jax.train_sft --config configs/janus_pro_7b_sft.py:v5e-16 --workdir runs/janus7b_sft

What stands after the colon is the slice, "v5e-16@2" for two that are joined. bf16 computes; the parameters that learn,
their gradients and AdamW's moments are f32 (`moments` says where they are not).
"""

from ml_collections import ConfigDict

from janus_jax.training.settings import use_slice

# Of each slice the mesh (data, fsdp, tensor) and what differs from USUAL.
SLICES = {
    "v5e-16": {"mesh": (1, 16, 1)},
    "v5p-8": {"mesh": (1, 4, 1)},
    "v6e-8": {"mesh": (1, 8, 1), "micro_batches": 2},
    "v4-16": {"mesh": (1, 8, 1), "micro_batches": 2},
    "tpu7x-8": {"mesh": (1, 8, 1)},
}
USUAL = {
    "mesh": (1, -1, 1),  # data, fsdp, tensor
    "micro_batches": 1,  # parts that a step's batch is cut into
    "moments": "float32",  # how they are kept between steps; "bfloat16" halves their memory
    "gradients": "float32",  # "bfloat16" halves theirs
}

# (length, ((task, earlier rounds, rows per step), ...)): a prompt has at most 200 tokens, a reason 184, a picture 576.
# Multiples of 128, the blocks of the attention kernel; the few rows that are longer are drawn anew. 24 draw, 40 judge
# and 64 redraw: the paper's 0.2 : 0.3 : 0.5. The rows of each divide by 16 ...
BUCKETS = (
    (1024, (("draw", 0, 24), ("judge", 0, 24))),
    (1792, (("redraw", 1, 40), ("judge", 1, 8))),
    (2560, (("redraw", 2, 24), ("judge", 2, 8))),
)
# ... and the same by 32, where 16 rows have more room than they need, which is 6 % more positions.
BUCKETS_OF_32 = (
    (1024, (("draw", 0, 24), ("judge", 0, 8))),
    (1792, (("redraw", 1, 40), ("judge", 1, 8), ("judge", 0, 16))),
    (2560, (("redraw", 2, 24), ("judge", 2, 8))),
)


def get_config(slice_name: str = "v5e-16"):
    config = ConfigDict()
    config.seed = 0
    config.preset = "7b"
    # Entries that replace the preset's: f32 master weights, bf16 computes; of each layer the backward pass keeps its
    # input alone.
    config.model = ConfigDict({"dtype": "bfloat16", "remat": "full"})
    config.init = "runs/janus7b"  # the released model, converted
    config.vq = ""  # a picture tokenizer for fresh parameters, where init is empty
    config.cache = "runs/labels7b.npz"  # labelled pictures and their codes
    config.edits = ""  # the same of edits, which buckets may ask for; several: with commas
    config.draws = ""  # right pictures that `draw` learns from, in place of config.cache
    config.frozen = (r"vq/.*", r"siglip/.*")  # regular expressions over the paths of what is not trained
    config.buckets = BUCKETS if slice_name in SLICES else BUCKETS_OF_32
    config.shares = (2, 3, 5, 0)  # of the loss: draw, judge, redraw, describe
    config.verdict_share = 0.8  # of the judge's loss: its Yes or No, the rest is the reason's
    config.drop_prompt = 0.1  # share of drawings that are learnt without their prompt, for guidance
    config.mended = 0.0  # share of redrawn pictures that are the wrong one mended, where the cache has such
    config.scrambled = 0.0  # share of edits and mended redraws some of whose codes become random ones
    config.judged_right = 0.7  # the least score of a picture that is judged Yes
    # what commands will draw with
    config.cfg_weight = 5.0
    config.temperature = 1.0
    config.steps = 50_000
    config.decay_steps = 0  # of the cosine; 0 = steps
    config.optimizer = "adamw"  # or "muon"
    config.learning_rate = 2e-5  # after `warmup` steps; then a cosine to the final one
    config.final_learning_rate = 2e-7
    config.warmup = 1000
    config.weight_decay = 0.05  # of all but norms and biases
    config.log_every = 50  # steps between two lines of metrics
    config.save_every = 500  # steps between two checkpoints
    config.writers = ("tensorboard",)  # beside metrics.jsonl; also "wandb", or module:name of your own
    # mesh, micro_batches, moments, gradients
    use_slice(config, slice_name, SLICES, USUAL)
    return config

"""Stage 1 of Janus-Pro-7B on the released weights and label files, with the paper's settings (batch 128, 50,000 steps).
The README says which of the slices below it has been compiled for. Not trained: that needs the data and the chips.

    python -m janus_jax.compile --config configs/janus_pro_7b_sft.py --topology v5e-16,v5p-8
    python -m janus_jax.convert --src Janus-Pro-7B --dst runs/janus7b --to own
    python -m janus_jax.cache_labels --checkpoint runs/janus7b --labels labels.jsonl --images FOLDER \\
        --out runs/labels7b.npz
    python -m janus_jax.train_sft --config configs/janus_pro_7b_sft.py:v5e-16 --workdir runs/janus7b_sft

What stands after the colon is the slice, "v5e-16@2" for two that are joined. bf16 computes; the parameters that learn,
their gradients and AdamW's moments are f32 (`moments` says where they are not).
"""

from janus_jax.cli import sibling

# Of each slice the mesh (data, fsdp, tensor) and what differs from USUAL.
SLICES = {
    "v5e-16": {"mesh": (1, 16, 1)},
    "v5p-8": {"mesh": (1, 4, 1)},
    "v6e-8": {"mesh": (1, 8, 1), "micro_batches": 2},
    "v4-16": {"mesh": (1, 8, 1), "micro_batches": 2},
    "tpu7x-8": {"mesh": (1, 8, 1)},
}
# micro_batches: parts that a step's batch is cut into; moments, gradients: how they are kept
USUAL = {"mesh": (1, -1, 1), "micro_batches": 1, "moments": "float32", "gradients": "float32"}

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


def use_slice(config, name: str, slices: dict, usual: dict) -> None:
    """Sets what a slice asks for; of several, "v5e-16@2", each has its share of the data axis, and so of the rows."""
    one, _, count = name.partition("@")
    settings, count = usual | slices.get(one, {}), int(count or 1)
    data, *others = settings["mesh"]
    settings["mesh"] = (data * count, *others)
    settings["micro_batches"] = max(settings["micro_batches"] // count, 1)
    if "rollout_rows" in settings:
        settings["rollout_rows"] *= count
    for key, value in settings.items():
        setattr(config, key, value)


def get_config(slice_name: str = "v5e-16"):
    config = sibling(__file__, "shapes_base").get_config()
    config.preset = "7b"
    # f32 master weights; of each layer the backward pass keeps its input alone
    config.model = {"dtype": "bfloat16", "remat": "full"}
    config.init = "runs/janus7b"
    config.cache = "runs/labels7b.npz"
    config.frozen = (r"vq/.*", r"siglip/.*")
    config.buckets = BUCKETS if slice_name in SLICES else BUCKETS_OF_32
    config.shares = (2, 3, 5, 0)  # draw, judge, redraw, describe
    config.verdict_share = 0.8
    config.judged_right = 0.7
    config.cfg_weight = 5.0
    config.temperature = 1.0
    config.steps = 50_000
    config.optimizer = "adamw"
    config.learning_rate = 2e-5
    config.final_learning_rate = 2e-7
    config.warmup = 1000
    use_slice(config, slice_name, SLICES, USUAL)
    return config

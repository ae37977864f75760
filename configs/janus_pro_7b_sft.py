"""Stage 1 of Janus-Pro-7B on the released weights and label files, with the paper's settings (batch 128, 50,000 steps).
The README says which of the slices below it has been compiled for. Not trained: that needs the data and the chips.

    python -m janus_jax.compile --config configs/janus_pro_7b_sft.py --topology v5e-16,v5p-8
    python -m janus_jax.convert --src Janus-Pro-7B --dst runs/janus7b --to own
    python -m janus_jax.cache_labels --checkpoint runs/janus7b --labels labels.jsonl --images FOLDER \\
        --out runs/labels7b.npz
    python -m janus_jax.train_sft --config configs/janus_pro_7b_sft.py:v5e-16 --workdir runs/janus7b_sft

What stands after the colon is the slice. bf16 computes; the parameters that learn, their gradients and AdamW's moments
are f32 (`moments` says where they are not).
"""

from importlib import util
from pathlib import Path

# slice -> mesh (data, fsdp, tensor), parts that a step's batch is cut into, how moments are kept, and gradients.
# 16 divides the rows of every bucket, so fsdp x micro_batches must divide 16.
SLICES = {
    "v5e-16": ((1, 16, 1), 1, "float32", "float32"),
    "v5p-8": ((1, 4, 1), 1, "float32", "float32"),
    "v6e-8": ((1, 8, 1), 2, "float32", "float32"),
    "v4-16": ((1, 8, 1), 2, "float32", "float32"),
    "tpu7x-8": ((1, 8, 1), 1, "float32", "float32"),
}
ELSEWHERE = ((1, -1, 1), 1, "float32", "float32")


def get_config(slice_name: str = "v5e-16"):
    spec = util.spec_from_file_location("shapes_base", Path(__file__).with_name("shapes_base.py"))
    base = util.module_from_spec(spec)
    spec.loader.exec_module(base)
    config = base.get_config()
    config.preset = "7b"
    # f32 master weights; of each layer the backward pass keeps its input alone
    config.model = {"dtype": "bfloat16", "remat": "full"}
    config.init = "runs/janus7b"
    config.cache = "runs/labels7b.npz"
    config.frozen = (r"vq/.*", r"siglip/.*")
    # (length, ((task, earlier rounds, rows per step), ...)): a prompt has at most 200 tokens, a reason 184, a picture
    # 576. Multiples of 128, the blocks of the attention kernel; the few rows that are longer are drawn anew. 24 draw,
    # 40 judge and 64 redraw: the paper's 0.2 : 0.3 : 0.5.
    config.buckets = (
        (1024, (("draw", 0, 24), ("judge", 0, 24))),
        (1792, (("redraw", 1, 40), ("judge", 1, 8))),
        (2560, (("redraw", 2, 24), ("judge", 2, 8))),
    )
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
    config.mesh, config.micro_batches, config.moments, config.gradients = SLICES.get(slice_name, ELSEWHERE)
    return config

"""Stage 1 on the released weights and label files, with the paper's settings (batch 128, 50,000 steps). Not run here:
it needs the data and accelerators with room for 7 B parameters, their gradients and AdamW's moments.

    python -m janus_jax.convert --src Janus-Pro-7B --dst runs/janus --to own
    python -m janus_jax.cache_labels --checkpoint runs/janus --labels labels.jsonl --images FOLDER --out runs/labels.npz
    python -m janus_jax.train_sft --config configs/janus_sft.py --workdir runs/janus_sft
"""

from importlib import util
from pathlib import Path


def get_config():
    spec = util.spec_from_file_location("shapes_base", Path(__file__).with_name("shapes_base.py"))
    base = util.module_from_spec(spec)
    spec.loader.exec_module(base)
    config = base.get_config()
    config.preset = "7b"
    config.model = {"dtype": "bfloat16", "remat": "full"}
    config.init = "runs/janus"
    config.cache = "runs/labels.npz"
    config.mesh = (1, -1, 1)
    config.frozen = (r"vq/.*", r"siglip/.*")
    # (length, ((task, earlier rounds, rows per step), ...)): a prompt has at most 200 tokens, a reason 184, a picture
    # 576; rows in the paper's mixture 0.2 : 0.3 : 0.5, as far as multiples of 8 go
    config.buckets = (
        (776, (("draw", 0, 24),)),
        (1024, (("judge", 0, 16),)),
        (1600, (("redraw", 1, 32),)),
        (1824, (("judge", 1, 16),)),
        (2400, (("redraw", 2, 32),)),
        (2624, (("judge", 2, 8),)),
    )
    config.micro_batches = 1
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
    return config

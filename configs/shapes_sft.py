"""Stage 1 on the embedded world: the three tasks in one mixture, from the base model.

python -m janus_jax.train_sft --config configs/shapes_sft.py --workdir runs/sft
"""

from importlib import util
from pathlib import Path


def get_config():
    spec = util.spec_from_file_location("shapes_base", Path(__file__).with_name("shapes_base.py"))
    base = util.module_from_spec(spec)
    spec.loader.exec_module(base)
    config = base.get_config()
    config.init = "runs/base"
    # (length, ((task, earlier rounds, rows per step), ...))
    config.buckets = (
        (56, (("draw", 0, 6),)),
        (76, (("judge", 0, 12),)),
        (120, (("redraw", 1, 8),)),
        (136, (("judge", 1, 4),)),
        (184, (("redraw", 2, 4), ("judge", 2, 2))),
    )
    config.shares = (10, 10, 15, 0)  # draw, judge, redraw as released; describe
    config.verdict_share = 0.8
    config.steps = 403
    config.decay_steps = 800
    config.learning_rate = 8e-4
    config.final_learning_rate = 2e-5
    config.warmup = 30
    return config

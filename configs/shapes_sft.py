r"""Stage 1 on the embedded world: the three tasks in one mixture, from the base model, on rendered pictures and on the
base model's own drawings.

    python -m janus_jax.cache_codes --tokenizer runs/vq/model --data-dir runs/data --split train_free \
        --out runs/cache_free.npz
    python -m janus_jax.label_drawings --checkpoint runs/base --cache runs/cache.npz runs/cache_free.npz \
        --out runs/drawn.npz
    python -m janus_jax.train_sft --config configs/shapes_sft.py --workdir runs/sft

2 CPU cores: 6 + 5 minutes for codes and drawings, then 57 minutes (3200 steps at 0.93 per second).
Expected: the README's SFT rows.
"""

from janus_jax.cli import sibling


def get_config():
    config = sibling(__file__, "shapes_base").get_config()
    config.init = "runs/base"
    config.cache = "runs/drawn.npz"
    # (length, ((task, earlier rounds, rows per step), ...)); 24 tokens of prompt: the few longer ones are left out
    config.buckets = (
        (60, (("draw", 0, 12),)),
        (80, (("judge", 0, 16),)),
        (124, (("redraw", 1, 8),)),
        (140, (("judge", 1, 4),)),
        (188, (("redraw", 2, 4), ("judge", 2, 2))),
    )
    config.shares = (10, 10, 15, 0)  # draw, judge, redraw as released; describe
    config.verdict_share = 0.8
    config.steps = 3200
    config.learning_rate = 7e-4
    config.final_learning_rate = 2e-5
    config.warmup = 30
    return config

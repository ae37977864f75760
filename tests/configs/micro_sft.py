"""Stage 1 on a micro world, for tests: two layers, a few prompts, short sequences."""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.preset = "shapes"
    config.model = ConfigDict(
        {
            "llama": {"width": 64, "layers": 2, "heads": 2, "kv_heads": 2, "head_dim": 32, "mlp": 128},
            "siglip": {"width": 32, "layers": 1, "heads": 2, "mlp": 64},
        }
    )
    config.init = ""
    config.vq = ""
    config.cache = ""
    config.edits = ""
    config.draws = ""  # right pictures that `draw` learns from, in place of config.cache
    config.mesh = (-1, 1, 1)
    config.frozen = (r"vq/.*",)
    config.buckets = ((120, (("draw", 0, 8), ("judge", 0, 8), ("redraw", 1, 8))),)
    config.micro_batches = 1
    config.shares = (10, 10, 15, 0)
    config.verdict_share = 0.8
    config.drop_prompt = 0.1
    config.mended = 0.0
    config.scrambled = 0.0
    config.judged_right = 0.8
    config.cfg_weight = 5.0
    config.temperature = 1.0
    config.steps = 30
    config.decay_steps = 0
    config.optimizer = "adamw"
    config.moments = "float32"
    config.gradients = "float32"
    config.learning_rate = 5e-3
    config.final_learning_rate = 5e-4
    config.warmup = 3
    config.weight_decay = 0.05
    config.log_every = 1
    config.save_every = 5
    return config

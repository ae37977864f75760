"""Drawing, judging and drawing again with Janus-Pro-1B, for janus_jax.compile alone: `generate` has flags instead.

python -m janus_jax.compile --config configs/janus_pro_generate.py --topology v5e-1
python -m janus_jax.generate --checkpoint runs/janus1b_sft --prompt "..." --samples 4 --rounds 3 --out DIR

7B on the eight chips of a v5e-8: --config.preset=7b --config.mesh="(1,1,8)", and --mesh tensor=8 for generate.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.preset = "1b"
    config.model = ConfigDict({"dtype": "bfloat16"})
    config.mesh = (-1, 1, 1)  # data, fsdp, tensor, of one process's devices
    config.batch = 4  # trajectories at a time
    config.rounds = 3
    config.prompt_tokens = 200
    config.max_reason_tokens = 80
    config.cfg_weight = 5.0
    return config

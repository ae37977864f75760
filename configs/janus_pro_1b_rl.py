"""Stage 2 of Janus-Pro-1B: configs/janus_pro_7b_rl.py with the smaller model and its slices. The README says
which of the slices below it has been compiled for; not trained.

    python -m janus_jax.compile --config configs/janus_pro_1b_rl.py --topology v5e-4,v5p-8
    python -m janus_jax.train_rl --config configs/janus_pro_1b_rl.py:v5e-8 --workdir runs/janus1b_rl \\
        --config.prompts=prompts.txt --config.reward.kind=...
"""

from janus_jax.cli import sibling

# Of each slice the mesh (data, fsdp, tensor) and what differs from the larger model's USUAL.
SLICES = {
    "v5e-4": {"mesh": (1, 4, 1), "rollout_rows": 8},
    "v5e-8": {"mesh": (1, 8, 1), "micro_batches": 8},
    "v4-8": {"mesh": (1, 4, 1), "micro_batches": 8, "rollout_rows": 32},
    "v5p-8": {"mesh": (1, 4, 1), "micro_batches": 8, "rollout_rows": 0},
    "v6e-4": {"mesh": (1, 4, 1), "micro_batches": 8, "rollout_rows": 32},
    "tpu7x-8": {"mesh": (1, 8, 1), "micro_batches": 8, "rollout_rows": 0},
}


def get_config(slice_name: str = "v5e-8"):
    larger = sibling(__file__, "janus_pro_7b_rl")
    config = larger.get_config()
    config.preset = "1b"
    config.init = "runs/janus1b_sft"
    sibling(__file__, "janus_pro_7b_sft").use_slice(config, slice_name, SLICES, larger.USUAL)
    return config

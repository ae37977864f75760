"""Stage 2 of Janus-Pro-7B after configs/janus_pro_7b_sft.py, with the paper's objective and settings: up to two rounds,
128 trajectories a step. Not trained: that needs the model, a judge and the chips. The README says which of the slices
below it has been compiled for.

    python -m janus_jax.compile --config configs/janus_pro_7b_rl.py --topology v5p-8,v5p-16
    python -m janus_jax.train_rl --config configs/janus_pro_7b_rl.py:v5p-8 --workdir runs/janus7b_rl \\
        --config.prompts=prompts.txt --config.reward.kind=...

What stands after the colon is the slice. bf16 computes, f32 is kept; while it draws, a bf16 copy of the policy is
split over `tensor` alone.
"""

from janus_jax.cli import sibling

# Of each slice the mesh (data, fsdp, tensor) and what differs from USUAL.
SLICES = {
    "v5e-16": {"mesh": (1, 4, 4), "micro_batches": 32, "rollout_rows": 8},
    "v5e-32": {"mesh": (1, 8, 4)},
    "v5p-8": {"mesh": (1, 1, 4)},
    "v5p-16": {"mesh": (1, 4, 2), "micro_batches": 8, "rollout_rows": 0},
    "v4-16": {"mesh": (1, 2, 4), "micro_batches": 32, "rollout_rows": 16},
    "v6e-8": {"mesh": (1, 2, 4), "micro_batches": 32, "rollout_rows": 16},
    "tpu7x-8": {"mesh": (1, 2, 4), "rollout_rows": 0},
}
# micro_batches: parts that a step's batch is cut into; rollout_rows: trajectories drawn at a time, 0 = all; moments,
# gradients: how they are kept
USUAL = {
    "mesh": (1, -1, 4),
    "micro_batches": 16,
    "rollout_rows": 64,
    "moments": "float32",
    "gradients": "float32",
}


def get_config(slice_name: str = "v5p-16"):
    config = sibling(__file__, "shapes_rl").get_config()
    config.preset = "7b"  # for compile; the checkpoint says it again
    config.init = "runs/janus7b_sft"
    config.model = {"dtype": "bfloat16", "remat": "full"}
    config.matmul_precision = ""
    config.frozen = (r"vq/.*", r"siglip/.*")
    config.credit = "trajectory"
    config.rounds = 2
    config.group = 8
    config.prompts_per_step = 16
    config.prompt_tokens = 64
    config.cfg_weight = 5.0
    config.temperature = 1.0
    config.max_reason_tokens = 80
    config.beta = 0.05
    # bf16 rounds otherwise in a sampler's steps of one token than in a trainer's whole rows
    config.max_logp_gap = 0.5
    config.steps = 3000
    config.schedule = "cosine"
    config.learning_rate = 6e-6
    config.turn_learning_rate = 2e-6
    config.final_learning_rate = 2e-7
    config.warmup = 100
    config.turn_step = 400
    config.weight_decay = 0.05
    config.retention_every = 0
    config.save_every = 100
    config.storyboard_every = 100
    sibling(__file__, "janus_pro_7b_sft").use_slice(config, slice_name, SLICES, USUAL)
    return config

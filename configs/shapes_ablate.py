"""What each part of the recipe is worth, on the embedded world: all RL rows start from one SFT model and have the same
budget.

    python -m janus_jax.ablate --config configs/shapes_ablate.py

2 CPU cores: not run as a whole yet. Stage 1 rows take 11 minutes each (600 steps), stage 2 rows 4 (40 steps), an
evaluation 2.
"""

from ml_collections import ConfigDict

SFT, RL = ("train_sft", "configs/shapes_sft.py"), ("train_rl", "configs/shapes_rl.py")
SHORT = {"init": "runs/base", "cache": "runs/drawn.npz", "steps": 600}
STEPS = {"init": "@sft", "steps": 40, "turn_step": 10}


def get_config():
    config = ConfigDict()
    config.workdir = "runs/ablate"
    config.evaluate = ConfigDict({"prompts_per_category": 50, "samples": 2, "rounds": 3, "batch": 200, "seed": 0})
    config.rows = (
        {"name": "sft", "train": SFT, "set": SHORT},
        {"name": "best_of_3", "set": {"init": "@sft"}, "best_of": 3},
        {"name": "sft_draw_only", "train": SFT, "set": {**SHORT, "shares": "(1,0,0,0)"}},
        {"name": "sft_judge_and_redraw", "train": SFT, "set": {**SHORT, "shares": "(0,10,15,0)"}},
        {"name": "own_prompt", "train": RL, "set": {**STEPS, "credit": "released/own_prompt"}, "seeds": 3},
        {"name": "trajectory", "train": RL, "set": {**STEPS, "credit": "trajectory", "rounds": 3}, "seeds": 3},
        {"name": "improvement", "train": RL, "set": {**STEPS, "credit": "improvement", "rounds": 3}, "seeds": 3},
        {"name": "released_habits", "train": RL, "set": {**STEPS, "released": True}},
        {"name": "rloo", "train": RL, "set": {**STEPS, "credit": "trajectory", "rounds": 3, "estimator": "rloo"}},
        {"name": "dr_grpo", "train": RL, "set": {**STEPS, "credit": "trajectory", "rounds": 3, "estimator": "dr_grpo"}},
    )
    return config

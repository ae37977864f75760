"""What each part of the recipe is worth, on the embedded world. Stage 1 is short here, and every row of stage 2 has one
budget: 50 steps of 32 trajectories, from the stage 1 model of its own seed.

    python -m janus_jax.ablate --config configs/shapes_ablate.py

Needs runs/base and runs/drawn.npz: see configs/shapes_sft.py.
"""

from ml_collections import ConfigDict

SFT, RL = ("train_sft", "configs/shapes_sft.py"), ("train_rl", "configs/shapes_rl.py")
SHORT = {"steps": 300, "save_every": 100}
STEPS = {
    "init": "@sft",
    "steps": 50,
    "prompts_per_step": 4,
    "learning_rate": 5e-5,
    "turn_learning_rate": 5e-5,
    "final_learning_rate": 1e-5,
    "warmup": 3,
    "turn_step": 10,
}
WHOLE = {**STEPS, "credit": "trajectory", "rounds": 2}


def get_config():
    config = ConfigDict()
    config.workdir = "runs/ablate"
    config.jobs = 2
    config.baseline = "sft"
    config.evaluate = ConfigDict({"prompts_per_category": 50, "samples": 2, "rounds": 3, "batch": 200, "seed": 0})
    config.rows = (
        {"name": "sft", "train": SFT, "set": SHORT, "seeds": 3},
        {"name": "own_prompt", "train": RL, "set": STEPS, "seeds": 3},
        {"name": "trajectory", "train": RL, "set": WHOLE, "seeds": 3},
        {"name": "improvement", "train": RL, "set": {**WHOLE, "credit": "improvement"}, "seeds": 3},
        {"name": "best_of_3", "set": {"init": "@sft"}, "best_of": 3},
        {"name": "best_of_2", "set": {"init": "@sft"}, "best_of": 2},
        {"name": "sft_draw_only", "train": SFT, "set": {**SHORT, "shares": "(1,0,0,0,0)"}},
        {"name": "sft_judge_and_redraw", "train": SFT, "set": {**SHORT, "shares": "(0,10,15,0,0)"}},
        {"name": "released_log_probs", "train": RL, "set": {**STEPS, "released": True}},
        {"name": "rloo", "train": RL, "set": {**WHOLE, "estimator": "rloo"}},
        {"name": "dr_grpo", "train": RL, "set": {**WHOLE, "estimator": "dr_grpo"}},
        {"name": "ppo", "train": RL, "set": {**WHOLE, "estimator": "ppo"}},
    )
    return config

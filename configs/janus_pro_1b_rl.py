"""Stage 2 of Janus-Pro-1B after configs/janus_pro_1b_sft.py, with the paper's objective and settings: up to two rounds,
128 trajectories a step. Not trained: that needs the model, a judge and the chips. docs/slices.md says which slices
it has been compiled for.

    python -m janus_jax.compile --config configs/janus_pro_1b_rl.py --topology v5e-4,v5p-8
    python -m janus_jax.train_rl --config configs/janus_pro_1b_rl.py:v5e-8 --workdir runs/janus1b_rl \\
        --config.prompts=prompts.txt --config.reward.kind=...
"""

from ml_collections import ConfigDict

from janus_jax.rewards.settings import DEFAULTS
from janus_jax.training.settings import use_slice

# Of each slice the mesh (data, fsdp, tensor) and what differs from USUAL.
SLICES = {
    "v5e-4": {"mesh": (1, 4, 1), "rollout_rows": 8},
    "v5e-8": {"mesh": (1, 8, 1), "micro_batches": 8},
    "v4-8": {"mesh": (1, 4, 1), "micro_batches": 8, "rollout_rows": 32},
    "v5p-8": {"mesh": (1, 4, 1), "micro_batches": 8, "rollout_rows": 0},
    "v6e-4": {"mesh": (1, 4, 1), "micro_batches": 8, "rollout_rows": 32},
    "tpu7x-8": {"mesh": (1, 8, 1), "micro_batches": 8, "rollout_rows": 0},
}
USUAL = {
    "mesh": (1, -1, 4),  # data, fsdp, tensor
    "micro_batches": 16,  # parts that a step's batch is cut into
    "rollout_rows": 64,  # trajectories that are drawn at a time: what the cache has to hold; 0 = all
    "moments": "float32",  # how they are kept between steps; "bfloat16" halves their memory
    "gradients": "float32",  # "bfloat16" halves theirs
}


def get_config(slice_name: str = "v5e-8"):
    config = ConfigDict()
    config.seed = 0
    config.preset = "1b"  # for compile; the checkpoint says it again
    config.init = "runs/janus1b_sft"  # a checkpoint or a finished workdir; also the KL reference
    # how to compute, in place of what the checkpoint says: bf16, and of each layer its input alone is kept
    config.model = ConfigDict({"dtype": "bfloat16", "remat": "full"})
    config.matmul_precision = ""  # of f32 products; "" = the default of the device
    config.frozen = (r"vq/.*", r"siglip/.*")  # regular expressions over the paths of what is not trained
    config.reward = ConfigDict(DEFAULTS)  # the judge: see janus_jax/rewards/settings.py
    config.most_missing = 0.25  # with a larger share of rewards missing, training waits and asks again ...
    config.pause_seconds = 60.0  # ... after so long
    config.credit = "trajectory"
    config.estimator = "grpo"  # or "rloo", "dr_grpo", "ppo"
    config.value_weight = 0.5  # of the value head, with ppo
    config.gamma = 1.0  # discount per token, with ppo
    config.gae_lambda = 0.95  # lambda of its advantages, see janus_jax/rl/advantages.py
    config.redraws = 0  # further rollouts per step, in search of groups whose members do not all fare alike
    config.ahead = False  # True: rewards of a rollout are fetched while the next is drawn, one update early
    config.min_group = 2  # groups with fewer known rewards are left out
    config.released = False  # True: every habit of the released code, for comparison with it
    config.rounds = 2
    config.group = 8  # trajectories per prompt
    config.prompts_per_step = 16
    config.task = "draw"  # or "edit", or "both"
    config.edit_share = 0.5  # of a step's prompts, where the task is both
    config.edit_prompts = ""  # a file of edits, {"image1", "text"} per line; "" = the embedded world's
    config.edit_images = ""  # the folder that its pictures lie in; "" = the file's own
    config.prompts = ""  # a file of prompts, one per line; "" = the embedded world's
    config.free_prompts = 0.5  # the share of the world's that is freely composed
    config.failures = ()  # evaluations: its categories are asked for as often as they fail there; () = equally
    config.prompt_tokens = 64  # of the longest prompt
    config.cfg_weight = 5.0
    config.temperature = 1.0
    config.image_top_k = 0  # 0 = all
    config.text_top_k = 0  # 0 = all
    config.max_reason_tokens = 80
    config.updates = 1  # per rollout; with more than one the clip acts
    config.beta = 0.05  # of the KL to the reference
    config.refresh_every = 0  # steps between which the reference becomes the policy of the day; 0 = never
    config.clip_low = 0.2  # the ratio of new to old probabilities counts within 1 - clip_low ... 1 + clip_high
    config.clip_high = 0.2
    # bf16 rounds otherwise in a sampler's steps of one token than in a trainer's whole rows
    config.max_logp_gap = 0.5
    config.gap_every = 1  # steps between two looks at that gap, with ahead, which take a pass of their own
    config.steps = 3000
    # linear to learning_rate in warmup steps, linear to turn_learning_rate at turn_step, then the schedule to the end
    config.schedule = "cosine"  # or "linear"
    config.learning_rate = 6e-6
    config.turn_learning_rate = 2e-6
    config.final_learning_rate = 2e-7
    config.warmup = 100
    config.turn_step = 400
    config.weight_decay = 0.05
    config.clip_norm = 1.0  # of the whole gradient
    config.retention_every = 0  # steps between looks at how well a fixed set is judged; 0 = never
    config.retention_prompts = 48  # two pictures each
    config.retention_pairs = ""  # a file of labelled pictures in their place, see janus_jax/data/pairs.py
    config.retention_questions = 0  # held-out questions about the world's pictures, of each kind, asked as often
    config.storyboard_every = 100  # steps between two pictures of trajectories
    config.save_every = 100  # steps between two checkpoints
    config.writers = ("tensorboard",)  # beside metrics.jsonl; also "wandb", or module:name of your own
    # mesh, micro_batches, rollout_rows, moments, gradients
    use_slice(config, slice_name, SLICES, USUAL)
    return config

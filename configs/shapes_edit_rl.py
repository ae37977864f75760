"""Stage 2 on the embedded world with edits: half of a step's prompts draw, half edit; two rounds, the released
per-segment credit, the paper's weights of following and preserving.

    python -m janus_jax.train_rl --config configs/shapes_edit_rl.py --workdir runs/edit_rl0 --config.seed=0

starts from runs/sft, whose mixture has edits. With --config.task=edit all of it edits.
"""

from ml_collections import ConfigDict

from janus_jax.rewards.settings import DEFAULTS


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.init = "runs/sft"  # a checkpoint, a finished workdir or a shipped name; also the KL reference
    # how to compute, in place of what the checkpoint says
    config.model = ConfigDict({"dtype": "float32", "remat": "none", "scan": False})
    # of f32 products, on accelerators that have less: sampler and trainer must agree; "" = the default of the device
    config.matmul_precision = "highest"
    config.mesh = (-1, 1, 1)  # data, fsdp, tensor
    config.frozen = (r"vq/.*",)  # regular expressions over the paths of what is not trained
    config.reward = ConfigDict(DEFAULTS)  # the judge: see janus_jax/rewards/settings.py
    # "match" of drawings; of edits the paper's weights. The release has 1.0 and 0.25: a small weight on following makes
    # the model copy its source, a small one on preserving draw it anew
    config.reward.weights = ConfigDict({"match": 1.0, "following": 0.5, "preserving": 1.0})
    config.most_missing = 0.25  # with a larger share of rewards missing, training waits and asks again ...
    config.pause_seconds = 60.0  # ... after so long
    config.credit = "released/own_prompt"
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
    config.prompts_per_step = 8
    config.rollout_rows = 0  # trajectories that are drawn at a time: what the cache has to hold; 0 = all
    config.task = "both"  # or "draw", or "edit"
    config.edit_share = 0.5  # of a step's prompts, where the task is both
    config.edit_prompts = ""  # a file of edits, {"image1", "text"} per line; "" = the embedded world's
    config.edit_images = ""  # the folder that its pictures lie in; "" = the file's own
    config.prompts = ""  # a file of prompts, one per line; "" = the embedded world's
    config.free_prompts = 0.5  # the share of the world's that is freely composed ("a red shape above a circle")
    config.failures = ()  # evaluations: categories are asked for as often as they fail there; () = equally often
    config.prompt_tokens = 40  # of the longest prompt or instruction
    config.cfg_weight = 1.0  # as stage 1 says
    config.temperature = 0.5
    config.image_top_k = 0  # 0 = all
    config.text_top_k = 0  # 0 = all
    config.max_reason_tokens = 20
    config.updates = 1  # per rollout; with more than one the clip acts
    config.micro_batches = 1  # parts that a step's batch is cut into
    config.beta = 0.02  # of the KL to the reference
    config.refresh_every = 0  # steps between which the reference becomes the policy of the day; 0 = never
    config.clip_low = 0.2  # the ratio of new to old probabilities counts within 1 - clip_low ... 1 + clip_high
    config.clip_high = 0.2
    config.max_logp_gap = 0.01  # between sampler and trainer, of any token; more ends the training
    config.steps = 80
    # linear to learning_rate in warmup steps, linear to turn_learning_rate at turn_step, then the schedule to the end
    config.schedule = "cosine"  # or "linear"
    config.learning_rate = 8e-5
    config.turn_learning_rate = 8e-5
    config.final_learning_rate = 1e-5
    config.warmup = 5
    config.turn_step = 20
    config.weight_decay = 0.0
    config.moments = "float32"  # of AdamW, how they are kept between steps; "bfloat16" halves their memory
    config.gradients = "float32"  # "bfloat16" halves theirs, where the model computes in it
    config.clip_norm = 1.0  # of the whole gradient
    config.retention_every = 10  # steps between looks at how well a fixed set is judged; 0 = never
    config.retention_prompts = 48  # two pictures each
    config.retention_pairs = ""  # a file of labelled pictures in their place, see janus_jax/data/pairs.py
    config.retention_questions = 8  # held-out questions about the world's pictures, of each kind, asked as often
    config.storyboard_every = 20  # steps between two pictures of trajectories
    config.save_every = 20  # steps between two checkpoints
    return config

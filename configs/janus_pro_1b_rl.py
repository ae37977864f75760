"""Stage 2 of Janus-Pro-1B: configs/janus_pro_7b_rl.py with the smaller model and its slices. The README says
which of the slices below it has been compiled for; not trained.

    python -m janus_jax.compile --config configs/janus_pro_1b_rl.py --topology v5e-4,v5p-8
    python -m janus_jax.train_rl --config configs/janus_pro_1b_rl.py:v5e-8 --workdir runs/janus1b_rl \\
        --config.prompts=prompts.txt --config.reward.kind=...
"""

from importlib import util
from pathlib import Path

# slice -> mesh (data, fsdp, tensor), parts that a step's batch is cut into, trajectories that a process draws at a time
# (0 = all of its share), how moments are kept, and gradients
SLICES = {
    "v5e-4": ((1, 4, 1), 16, 8, "float32", "float32"),
    "v5e-8": ((1, 8, 1), 8, 64, "float32", "float32"),
    "v4-8": ((1, 4, 1), 8, 64, "float32", "float32"),
    "v5p-8": ((1, 4, 1), 8, 0, "float32", "float32"),
    "v6e-4": ((1, 4, 1), 8, 64, "float32", "float32"),
    "tpu7x-8": ((1, 8, 1), 8, 0, "float32", "float32"),
}


def get_config(slice_name: str = "v5e-8"):
    spec = util.spec_from_file_location("janus_pro_7b_rl", Path(__file__).with_name("janus_pro_7b_rl.py"))
    larger = util.module_from_spec(spec)
    spec.loader.exec_module(larger)
    config = larger.get_config()
    config.preset = "1b"
    config.init = "runs/janus1b_sft"
    place = SLICES.get(slice_name, larger.ELSEWHERE)
    config.mesh, config.micro_batches, config.rollout_rows, config.moments, config.gradients = place
    return config

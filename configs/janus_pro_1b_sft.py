"""Stage 1 of Janus-Pro-1B: configs/janus_pro_7b_sft.py with the smaller model and its slices. Not trained yet.

    python -m janus_jax.compile --config configs/janus_pro_1b_sft.py --topology v5e-4,v5p-8
    python -m janus_jax.convert --src Janus-Pro-1B --dst runs/janus1b --to own
    python -m janus_jax.cache_labels --checkpoint runs/janus1b --labels labels.jsonl --images FOLDER \\
        --out runs/labels1b.npz
    python -m janus_jax.train_sft --config configs/janus_pro_1b_sft.py:v5e-4 --workdir runs/janus1b_sft

The README says which of the slices below it has been compiled for. On one v6e chip moments and gradients are bfloat16.
"""

from importlib import util
from pathlib import Path

# slice -> mesh (data, fsdp, tensor), parts that a step's batch is cut into, how moments are kept, and gradients
SLICES = {
    "v6e-1": ((1, 1, 1), 8, "bfloat16", "bfloat16"),
    "v5e-4": ((1, 4, 1), 4, "float32", "float32"),
    "v4-8": ((1, 4, 1), 4, "float32", "float32"),
    "v5p-8": ((1, 4, 1), 1, "float32", "float32"),
    "v6e-4": ((1, 4, 1), 1, "float32", "float32"),
    "tpu7x-8": ((1, 8, 1), 1, "float32", "float32"),
}


def get_config(slice_name: str = "v5e-4"):
    spec = util.spec_from_file_location("janus_pro_7b_sft", Path(__file__).with_name("janus_pro_7b_sft.py"))
    larger = util.module_from_spec(spec)
    spec.loader.exec_module(larger)
    config = larger.get_config()
    config.preset = "1b"
    config.init = "runs/janus1b"
    config.cache = "runs/labels1b.npz"
    config.mesh, config.micro_batches, config.moments, config.gradients = SLICES.get(slice_name, larger.ELSEWHERE)
    return config

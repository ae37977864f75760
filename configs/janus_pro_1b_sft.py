"""Stage 1 of Janus-Pro-1B: configs/janus_pro_7b_sft.py with the smaller model and its slices. Not trained yet.

    python -m janus_jax.compile --config configs/janus_pro_1b_sft.py --topology v5e-4,v5p-8
    python -m janus_jax.convert --src Janus-Pro-1B --dst runs/janus1b --to own
    python -m janus_jax.cache_labels --checkpoint runs/janus1b --labels labels.jsonl --images FOLDER \\
        --out runs/labels1b.npz
    python -m janus_jax.train_sft --config configs/janus_pro_1b_sft.py:v5e-4 --workdir runs/janus1b_sft

The README says which of the slices below it has been compiled for. On one v6e chip moments and gradients are bfloat16.
"""

from janus_jax.cli import sibling

# Of each slice the mesh (data, fsdp, tensor) and what differs from the larger model's USUAL.
SLICES = {
    "v6e-1": {"mesh": (1, 1, 1), "micro_batches": 8, "moments": "bfloat16", "gradients": "bfloat16"},
    "v5e-4": {"mesh": (1, 4, 1), "micro_batches": 4},
    "v4-8": {"mesh": (1, 4, 1), "micro_batches": 4},
    "v5p-8": {"mesh": (1, 4, 1)},
    "v6e-4": {"mesh": (1, 4, 1)},
    "tpu7x-8": {"mesh": (1, 8, 1)},
}


def get_config(slice_name: str = "v5e-4"):
    larger = sibling(__file__, "janus_pro_7b_sft")
    config = larger.get_config()
    config.preset = "1b"
    config.init = "runs/janus1b"
    config.cache = "runs/labels1b.npz"
    config.buckets = larger.BUCKETS if slice_name in SLICES else larger.BUCKETS_OF_32
    larger.use_slice(config, slice_name, SLICES, larger.USUAL)
    return config

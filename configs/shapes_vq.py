"""The picture tokenizer of the embedded world: 48 px, 36 codes out of 256.

    python -m janus_jax.train_vq --config configs/shapes_vq.py --workdir runs/vq

2 CPU cores: 12 minutes (3300 steps at 4 to 5 per second). Expected, in its last line: the verifier accepts 0.985 of
reconstructed right pictures. Resumes by itself.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.vq = dict(  # as in models.vq.VQConfig
        image_size=48,
        channels=8,
        channel_multipliers=(1, 2, 4, 4),
        res_blocks=1,
        z_channels=32,
        codebook_size=256,
        code_dim=8,
        groups=1,
        attention=False,
        local_norm=True,  # codes of an object shall not depend on what else is in the picture
    )
    config.pictures = 50_000  # size of the (drawn on demand) training set
    config.batch = 16
    config.steps = (1000, 1500, 800)  # of the three phases: without quantisation, with codes, with one ground code
    config.learning_rates = (4e-3, 2e-3, 2e-3)
    config.final_learning_rate = 5e-5  # of each phase, by a cosine
    config.warmup = 50  # steps of each phase
    config.weight_decay = 0.0
    config.commitment = 0.25  # weight of the term that keeps latents near their codes
    config.entropy = (0.0, 0.0, 0.0)  # of the three phases: even use is no aim once the ground is one code
    config.temperature = 0.1  # of the softmax over codes, in the entropy term
    config.log_every = 50  # steps between two lines of metrics
    config.save_every = 300  # steps between two checkpoints
    return config

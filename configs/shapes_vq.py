"""The picture tokenizer of the embedded world: 96 px, 36 codes out of 1024. Its world is that of all that is trained on
it.

    python -m janus_jax.train_vq --config configs/shapes_vq.py --workdir runs/vq

2700 steps, nine minutes on two CPU cores beside the rendering of the data set. The last line says how many of 600
reconstructed right pictures the two verifiers accept: 0.998 and 0.982. Resumes by itself.
"""

from ml_collections import ConfigDict


def get_config():
    config = ConfigDict()
    config.seed = 0
    config.world = "second"  # one of janus_jax/shapes/world.py
    config.vq = dict(  # as in models.vq.VQConfig
        image_size=96,
        patch=4,  # the network works on 24 x 24 squares of 16 pixels
        channels=24,
        channel_multipliers=(1, 2, 4),
        res_blocks=1,
        z_channels=32,
        codebook_size=1024,  # a quarter of an object each: 7 shapes, 9 colours, 2 sizes make 504
        code_dim=8,
        groups=1,
        attention=False,
        local_norm=True,  # codes of an object shall not depend on what else is in the picture
    )
    config.pictures = 50_000  # size of the (drawn on demand) training set
    config.batch = 16
    config.steps = (1000, 1200, 500)  # of the three phases: without quantisation, with codes, with one ground code
    config.learning_rates = (3e-3, 2e-3, 2e-3)
    config.final_learning_rate = 5e-5  # of each phase, by a cosine
    config.warmup = 50  # steps of each phase
    config.weight_decay = 0.0
    config.commitment = 0.25  # weight of the term that keeps latents near their codes
    config.entropy = (0.0, 0.0, 0.0)  # of the three phases: even use is no aim once the ground is one code
    config.temperature = 0.1  # of the softmax over codes, in the entropy term
    config.log_every = 50  # steps between two lines of metrics
    config.save_every = 200  # steps between two checkpoints
    config.writers = ("tensorboard",)  # beside metrics.jsonl; also "wandb", or module:name of your own
    return config

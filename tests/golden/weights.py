"""The golden weights: what every tensor of the reference was filled with, made again from its name and shape.

A tensor is standard normal noise from a generator seeded with (seed, crc32 of the name), times a factor that
depends on what the tensor is: one for tables, the inverse root of the fan-in times a gain for everything that
multiplies, and small deviations from 0 and 1 for biases and norms. So no checkpoint has to be stored, and no
order of calls matters.
"""

import math
import zlib

import numpy as np

# First ending that fits decides. Tables are not scaled by their fan-in.
TABLES = {
    "embed_tokens.weight": 1.0,
    "gen_embed.weight": 1.0,
    "quantize.embedding.weight": 1.0,
    "pos_embed": 0.5,
    "attn_pool.latent": 1.0,
}
GAINS = {
    "lm_head.weight": 2.0,
    "q_proj.weight": 1.5,
    "k_proj.weight": 1.5,
    "o_proj.weight": 1.5,
    "down_proj.weight": 2.0,
    "gen_head.output_mlp_projector.weight": 1.5,
    "gen_head.vision_head.weight": 2.0,
    "aligner.layers.2.weight": 1.5,
    "attn.qkv.weight": 1.3,
    "mlp.fc2.weight": 1.5,
    "decoder.conv_out.weight": 0.8,
    "conv1.weight": 1.6,
    "conv2.weight": 1.6,
}


def _ending(table, name):
    return next((value for end, value in table.items() if name.endswith(end)), None)


def tensor(name: str, shape, seed: int = 0) -> np.ndarray:
    """One tensor of the reference under its original name, f32."""
    if name.endswith("codebook_used"):
        return np.zeros(shape, np.float32)
    noise = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(tuple(shape), np.float32)
    if len(shape) == 1:
        return np.float32(0.02) * noise if name.endswith(".bias") else 1 + np.float32(0.1) * noise
    factor = _ending(TABLES, name)
    if factor is None:
        factor = (_ending(GAINS, name) or 1.0) / math.sqrt(math.prod(shape[1:]))
    return noise * np.float32(factor)

"""Operations that the model needs, by formula: two per multiplication and addition in matrix products and convolutions.

Recomputation, padding of blocks and work done twice on a mesh are not in here; they are what a program adds to it.
"""

from janus_jax.models.janus import JanusConfig
from janus_jax.models.siglip import SiglipConfig
from janus_jax.models.vq import VQConfig
from janus_jax.sequences.batch import Batch

TRAINED = 3  # a forward pass, and as much again for the gradient by inputs and for that by parameters


def decoder(cfg: JanusConfig, tokens: int, pairs: int) -> int:
    """`tokens` through the decoder; pairs: of a query and a key that it sees, over all tokens."""
    c = cfg.llama
    weights = c.width * c.head_dim * (2 * c.heads + 2 * c.kv_heads) + 3 * c.width * c.mlp
    return c.layers * (2 * tokens * weights + 4 * pairs * c.heads * c.head_dim)


def causal(length: int, past: int = 0) -> int:
    """Pairs of `length` tokens in a row that come after `past` others."""
    return length * past + length * (length + 1) // 2


def text_head(cfg: JanusConfig, positions: int) -> int:
    """Logits of words."""
    return 2 * positions * cfg.llama.width * cfg.llama.vocab_size


def code_head(cfg: JanusConfig, positions: int) -> int:
    """Logits of codes."""
    return 2 * positions * cfg.llama.width * (cfg.llama.width + cfg.vq.codebook_size)


def embed_codes(cfg: JanusConfig, positions: int) -> int:
    """Codes to embeddings."""
    return 2 * positions * cfg.llama.width * (cfg.vq.code_dim + cfg.llama.width)


def aligner(cfg: JanusConfig, positions: int) -> int:
    """Features of seen pictures to embeddings."""
    return 2 * positions * cfg.llama.width * (cfg.siglip.width + cfg.llama.width)


def siglip(cfg: SiglipConfig, pictures: int) -> int:
    """Pictures to features."""
    block = 2 * cfg.width * (4 * cfg.width + 2 * cfg.mlp) + 4 * cfg.tokens * cfg.width
    return pictures * cfg.tokens * (cfg.layers * block + 2 * 3 * cfg.patch_size**2 * cfg.width)


def vq_encoder(cfg: VQConfig, pictures: int) -> int:
    """Pixels to codes."""
    area, width, last = (cfg.image_size // cfg.patch) ** 2, cfg.channels, len(cfg.channel_multipliers) - 1
    total = _conv(area, 3 * cfg.patch**2, width, 3)
    for i, multiplier in enumerate(cfg.channel_multipliers):
        outputs = cfg.channels * multiplier
        for _ in range(cfg.res_blocks):
            total += _res(area, width, outputs) + (_attention(cfg, area, outputs) if i == last else 0)
            width = outputs
        if i < last:
            area //= 4
            total += _conv(area, width, width, 3)
    total += 2 * _res(area, width, width) + _attention(cfg, area, width) + _conv(area, width, cfg.z_channels, 3)
    nearest = 2 * area * cfg.code_dim * cfg.codebook_size
    return pictures * (total + _conv(area, cfg.z_channels, cfg.code_dim, 1) + nearest)


def vq_decoder(cfg: VQConfig, pictures: int) -> int:
    """Codes to pixels."""
    area, width = cfg.grid**2, cfg.channels * cfg.channel_multipliers[-1]
    total = _conv(area, cfg.code_dim, cfg.z_channels, 1) + _conv(area, cfg.z_channels, width, 3)
    total += 2 * _res(area, width, width) + _attention(cfg, area, width)
    for i, multiplier in enumerate(reversed(cfg.channel_multipliers)):
        outputs = cfg.channels * multiplier
        for _ in range(cfg.res_blocks + 1):
            total += _res(area, width, outputs) + (_attention(cfg, area, outputs) if i == 0 else 0)
            width = outputs
        if i < len(cfg.channel_multipliers) - 1:
            area *= 4
            total += _conv(area, width, width, 3)
    return pictures * (total + _conv(area, width, 3 * cfg.patch**2, 3))


def _conv(area, inputs, outputs, size):
    return 2 * area * inputs * outputs * size**2


def _res(area, inputs, outputs):
    shortcut = _conv(area, inputs, outputs, 1) if inputs != outputs else 0
    return _conv(area, inputs, outputs, 3) + _conv(area, outputs, outputs, 3) + shortcut


def _attention(cfg, area, width):
    return cfg.attention * (4 * _conv(area, width, width, 1) + 4 * area**2 * width)


def scored(cfg: JanusConfig, batch: Batch, trained: bool) -> int:
    """One look at a batch's targets (logps.token_logps); trained: with the gradient of all but SigLIP."""
    B, T = batch.ids.shape
    rows = 2 * B if batch.uncond_ids is not None and batch.codes is not None else B
    total = decoder(cfg, rows * T, rows * causal(T)) + embed_codes(cfg, B * T)
    seen = 0
    if batch.codes is not None:
        total += code_head(cfg, rows * batch.codes.at.shape[1])
    if batch.text is not None:
        total += text_head(cfg, B * batch.text.at.shape[1])
    if batch.pixels is not None:
        pictures = B * batch.pixels.shape[1]
        total += aligner(cfg, pictures * cfg.siglip.tokens)
        seen = siglip(cfg.siglip, pictures)
    return total * (TRAINED if trained else 1) + seen

"""The models that are measured, with random weights, as this project and as HF transformers know them."""

import janus_jax
from janus_jax.models import LlamaConfig, SiglipConfig, VQConfig

PROMPT = 32  # tokens of a prompt
GUIDANCE = 5.0
PICTURES = 4
TRAJECTORIES = 8  # of an introspection, PICTURES at a time, half of which are drawn again
REASON = 32  # tokens of what is said about a picture
GROUP = 2  # pictures of a prompt, in a step of stage 2
SFT_ROWS = {"tiny": 8, "small": 2}

# Layers laid out one after another, as in the preset "shapes": on a CPU quicker than the loop.
SIZES = {
    "tiny": janus_jax.JanusConfig(
        llama=LlamaConfig(vocab_size=4096, width=256, layers=6, heads=4, kv_heads=4, head_dim=64, mlp=704),
        siglip=SiglipConfig(image_size=128, patch_size=16, width=256, layers=4, heads=4, mlp=1024),
        vq=VQConfig(image_size=128, channels=32),
        scan=False,
    ),
    "small": janus_jax.JanusConfig(
        llama=LlamaConfig(vocab_size=32000, width=768, layers=12, heads=12, kv_heads=12, head_dim=64, mlp=2048),
        siglip=SiglipConfig(image_size=384, patch_size=16, width=384, layers=6, heads=6, mlp=1536),
        vq=VQConfig(image_size=384, channels=64),
        scan=False,
    ),
    "1b": janus_jax.JanusConfig.preset("1b"),
}


def hf_config(cfg, transformers):
    """`cfg` in transformers' own words; ids 0, 1, 2 are the start, the end and the padding of a text."""
    llama, siglip, vq = cfg.llama, cfg.siglip, cfg.vq
    return transformers.JanusConfig(
        text_config=transformers.LlamaConfig(
            vocab_size=llama.vocab_size,
            hidden_size=llama.width,
            intermediate_size=llama.mlp,
            num_hidden_layers=llama.layers,
            num_attention_heads=llama.heads,
            num_key_value_heads=llama.kv_heads,
            head_dim=llama.head_dim,
            max_position_embeddings=llama.max_positions,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
        ).to_dict(),
        vision_config=transformers.JanusVisionConfig(
            image_size=siglip.image_size,
            patch_size=siglip.patch_size,
            hidden_size=siglip.width,
            num_hidden_layers=siglip.layers,
            num_attention_heads=siglip.heads,
            mlp_ratio=siglip.mlp / siglip.width,
            projection_dim=llama.width,
            num_image_tokens=siglip.tokens,
        ).to_dict(),
        vq_config=transformers.JanusVQVAEConfig(
            base_channels=vq.channels,
            channel_multiplier=list(vq.channel_multipliers),
            num_res_blocks=vq.res_blocks,
            latent_channels=vq.z_channels,
            num_embeddings=vq.codebook_size,
            embed_dim=vq.code_dim,
            projection_dim=llama.width,
            image_token_embed_dim=llama.width,
            num_patches=vq.grid,
        ).to_dict(),
        image_token_id=3,
        tie_word_embeddings=False,
    )

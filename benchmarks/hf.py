"""HF transformers' side of the comparison: the same tasks, as its documentation would have one write them."""

import functools
import inspect

import torch
import transformers

from benchmarks import sizes


def model_of(cfg, device="cpu", dtype=torch.float32, state=None):
    """JanusForConditionalGeneration of these sizes, with the weights of a state dict, or random ones."""
    model = transformers.JanusForConditionalGeneration._from_config(
        sizes.hf_config(cfg, transformers), dtype=dtype, attn_implementation="sdpa"
    )
    if state is not None:
        model.load_state_dict(state)
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=0, eos_token_id=1, pad_token_id=2, generation_kwargs={"boi_token_id": 3}
    )
    model.generation_config.generation_kwargs = {"boi_token_id": 3}
    # Janus calls this without an argument that some versions ask for
    prepare = model._prepare_static_cache
    if "prefill_chunk_size" in inspect.signature(prepare).parameters:
        model._prepare_static_cache = functools.partial(prepare, prefill_chunk_size=None)
    return model.to(device).eval()


def prompts(cfg, pictures, device, length=sizes.PROMPT):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, cfg.llama.vocab_size, (pictures, length), generator=generator)
    ids[:, 0] = 0
    return ids.to(device)


def draw(model, cfg, pictures: int, decoded: bool = True, more: int = 0):
    """Pictures of prompts of PROMPT tokens and `more`, under guidance."""
    ids = prompts(cfg, pictures, model.device, sizes.PROMPT + more)
    codes = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        generation_mode="image",
        do_sample=True,
        guidance_scale=sizes.GUIDANCE,
        use_cache=True,
        max_length=ids.shape[1] + cfg.vq.tokens,
    )
    with torch.no_grad():
        return model.decode_image_tokens(codes) if decoded else codes


def say(model, cfg, pixels):
    """REASON tokens about each picture f32[B,3,h,w], after a prompt."""
    ids = prompts(cfg, len(pixels), model.device)
    picture = torch.full((len(pixels), cfg.siglip.tokens), 3, device=model.device)
    ids = torch.cat([ids, picture, ids[:, 1:9]], dim=1)  # the question
    settings = {"do_sample": True, "min_new_tokens": sizes.REASON, "max_new_tokens": sizes.REASON}
    side = cfg.siglip.image_size
    pixels = torch.nn.functional.interpolate(pixels, (side, side), mode="bicubic")
    return model.generate(
        ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), generation_mode="text", **settings
    )


def introspect(model, cfg):
    """f(): what janus_jax.introspect does, by the library's own calls: PICTURES at a time are drawn, spoken about, and
    half of them drawn and spoken about again. Of the first picture the second one sees the reason alone: `generate`
    takes no codes. That is less than ours does."""

    def turn(pictures, more=0):
        drawn = draw(model, cfg, pictures, more=more)
        say(model, cfg, drawn.permute(0, 3, 1, 2) if drawn.shape[-1] == 3 else drawn)

    def run():
        for _ in range(sizes.TRAJECTORIES // sizes.PICTURES):
            turn(sizes.PICTURES)
            turn(sizes.PICTURES // 2, sizes.REASON)

    return run


def sft_step(model, cfg, rows: int):
    """f() -> loss, one AdamW step of draw rows each time."""
    model.train()
    for part in (model.model.vqmodel, model.model.vision_model, model.model.aligner):
        part.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.05)
    ids = prompts(cfg, rows, model.device)
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(0, cfg.vq.codebook_size, (rows, cfg.vq.tokens), generator=generator).to(model.device)

    def run():
        pictures = model.prepare_embeddings_for_image_generation(codes)
        embeds = torch.cat([model.get_input_embeddings()(ids), pictures], dim=1)
        hidden = model.model.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
        logits = model.model.generation_head(hidden[:, sizes.PROMPT - 1 : -1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), codes.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        return loss.item()

    return run


def task(name: str, size: str, device="cpu", dtype=torch.float32, state=None):
    """The function of a task."""
    cfg = sizes.SIZES[size]
    model = model_of(cfg, device, dtype, state)
    if name == "draw":
        return lambda: draw(model, cfg, sizes.PICTURES)
    if name == "introspect":
        return introspect(model, cfg)
    if name == "sft":
        return sft_step(model, cfg, sizes.SFT_ROWS[size])
    if name == "rl":
        from benchmarks.hf_rl import rl_step

        return rl_step(model, cfg)
    raise ValueError(name)

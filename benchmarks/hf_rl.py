"""A step of stage 2 as one would write it with HF transformers and PyTorch: generate, judge, log-probs, one step."""

import copy

import torch

from benchmarks import sizes
from benchmarks.hf import draw, prompts

YES_NO, QUESTION, BETA = (11, 12), 4, 0.05  # ids of the verdicts; tokens of the question


def code_logps(model, ids, codes):
    """Log-probabilities of codes [B,I] after prompts [B,T], under guidance: two rows of each."""
    empty = ids.clone()
    empty[:, 1:] = 2
    pictures = model.prepare_embeddings_for_image_generation(codes)
    embeds = torch.cat([model.get_input_embeddings()(torch.cat([ids, empty])), torch.cat([pictures, pictures])], dim=1)
    hidden = model.model.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
    given, free = model.model.generation_head(hidden[:, ids.shape[1] - 1 : -1]).float().chunk(2)
    logits = free + sizes.GUIDANCE * (given - free)
    return logits.log_softmax(-1).gather(-1, codes[..., None])[..., 0]


def verdict_logps(model, ids, features):
    """Log-probabilities [B,2] of the two verdicts about pictures, by their features [B,I,D]."""
    words = model.get_input_embeddings()
    embeds = torch.cat([words(ids), features, words(ids[:, :QUESTION])], dim=1)
    hidden = model.model.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state[:, -1]
    return model.lm_head(hidden)[:, list(YES_NO)].float().log_softmax(-1)


def surrogate(logps, reference, advantage):
    """The clipped objective's value on policy, where the ratio is 1, with the k3 penalty."""
    d = reference - logps
    return -(torch.exp(logps - logps.detach()) * advantage) + BETA * (torch.exp(d) - d - 1)


def rl_step(model, cfg):
    """f() -> loss, one step each time: what ours_rl.rl_step does."""
    reference = copy.deepcopy(model).eval()
    for part in (model.model.vqmodel, model.model.vision_model, model.model.aligner):
        part.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.0)
    ids = prompts(cfg, sizes.PICTURES // sizes.GROUP, model.device).repeat_interleave(sizes.GROUP, 0)
    side = cfg.siglip.image_size

    def centred(rewards):
        groups = rewards.view(-1, sizes.GROUP)
        return ((groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-6)).view(-1)

    def explore():
        codes = draw(model, cfg, sizes.PICTURES, decoded=False)
        pixels = ((model.decode_image_tokens(codes).clamp(-1, 1) + 1) * 127.5).to(torch.uint8)
        seen = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        if seen.shape[-1] != side:
            seen = torch.nn.functional.interpolate(seen, (side, side), mode="bicubic")
        features = model.model.get_image_features(seen).pooler_output
        verdicts = torch.multinomial(verdict_logps(model, ids, features).exp(), 1)
        reward = pixels[..., 0].float().mean((1, 2)) / 255
        agreed = 1 - (reward - (verdicts[:, 0] == 0).float()).abs()
        return codes, features, verdicts, centred(reward)[:, None], centred(agreed)[:, None]

    def scored(model, codes, features, verdicts):
        return code_logps(model, ids, codes), verdict_logps(model, ids, features).gather(-1, verdicts)

    def run():
        with torch.no_grad():
            codes, features, verdicts, *advantages = explore()
            references = scored(reference, codes, features, verdicts)
        policy = scored(model, codes, features, verdicts)
        terms = [surrogate(*each).mean() for each in zip(policy, references, advantages, strict=True)]
        loss = sum(terms) / len(terms)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        return loss.item()

    return run

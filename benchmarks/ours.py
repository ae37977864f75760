"""This project's side of the comparison: each task a function that does its work once and waits for it."""

import jax
import jax.numpy as jnp
import numpy as np

import janus_jax
from benchmarks import ours_rl, sizes
from janus_jax import heap
from janus_jax.checkpoints import loading
from janus_jax.models.janus import cast_params, init_params
from janus_jax.parallel import sharding
from janus_jax.sampling import decode, density
from janus_jax.sampling.density import Sampling
from janus_jax.sequences import batch as batches
from janus_jax.sequences.processor import Processor
from janus_jax.sequences.request import Request
from janus_jax.sequences.tokens import Tokenizer
from janus_jax.training import losses, optim
from janus_jax.training import step as train_step
from janus_jax.training.logps import token_logps


def prepared(model, params):
    """Parameters as they draw, see decode.prepared, in the dtype that is computed in."""
    return decode.prepared(jax.jit(cast_params, static_argnums=1)(params, model.cfg.dtype))


def begun(model, params, pictures: int):
    """(cache, last hidden, keys u32[B,2]), of prompts of PROMPT tokens under guidance, for pictures to be drawn."""
    rng, prompt = np.random.default_rng(0), sizes.PROMPT
    ids = rng.integers(4, model.cfg.llama.vocab_size, (pictures, prompt), np.int32)
    ids[:, 0] = 0
    batch = batches.Batch(
        ids=ids,
        kind=np.full_like(ids, batches.TEXT),
        mask=np.ones(ids.shape, bool),
        uncond_ids=np.concatenate([ids[:, :1], np.full_like(ids[:, 1:], 2)], axis=1),
    )
    keys = rng.integers(0, 2**32, (pictures, 2), np.uint32)
    return *decode.prefill(model, params, batch, guided=True), keys


def draw(model, params, pictures: int, decoded: bool = True, ahead: int = 1):
    """Pictures f32[B,h,w,3] (or their codes) under guidance, by the sampler. ahead: codes of a pass."""
    cache, hidden, keys = begun(model, params, pictures)
    sampling = Sampling(cfg_weight=sizes.GUIDANCE, lookahead=ahead)
    _, codes, _ = decode.draw(model, params, cache, hidden, keys, sampling, True, more=False)
    return jax.block_until_ready(decode.decode_codes(model, params, codes) if decoded else codes)


def introspect(model, params):
    """f(), two rounds of TRAJECTORIES trajectories, of which half say No to their first picture: the model's two
    verdicts are made equally likely whatever it sees, so that their random keys decide, and the seed is one that halves
    them."""
    head = params["llama"]["lm_head"]
    processor = Processor(Tokenizer.from_folder(loading.find("shapes-sft")), model.cfg.vq.image_size, _seen(model))
    yes, no = processor.special.yes, processor.special.no
    alike = {**params["llama"], "lm_head": head.at[:, no].set(head[:, yes]).at[:, processor.special.eos].set(0)}
    laid = prepared(model, {**params, "llama": alike})
    requests = [Request(f"a photo of {n} red circles") for n in range(sizes.TRAJECTORIES)]
    seed = next(seed for seed in range(1000) if _rejected(requests, seed, yes, no) == sizes.TRAJECTORIES // 2)
    sampling = Sampling(cfg_weight=sizes.GUIDANCE, max_reason_tokens=sizes.REASON)

    def run():
        settings = {"samples": 1, "rounds": 2, "sampling": sampling, "seed": seed, "batch": sizes.PICTURES}
        drawn = janus_jax.introspect(model, laid, processor, requests, **settings)
        again = sum(len(trajectory.rounds) == 2 for trajectory in drawn)
        assert again == sizes.TRAJECTORIES // 2, f"{again} of {len(drawn)} were drawn again"

    return run


def _seen(model):
    return model.cfg.siglip.image_size


def _rejected(requests, seed, yes, no):
    """How many of the requests' first verdicts are No where both are equally likely."""
    keys = np.stack([decode.row_key(seed, request, 0, 1) for request in requests])
    logps = np.full((len(requests), max(yes, no) + 1), -np.inf, np.float32)
    logps[:, [yes, no]] = np.log(0.5)
    return int((density.choose(keys, 0, jnp.asarray(logps)) == no).sum())


FROZEN = (r"vq/.*", r"siglip/.*", r"aligner/.*")


def sft_step(model, params, rows: int):
    """f() -> loss, one AdamW step of draw rows each time; everything but the tokenizer and the judge's eye is
    trained."""
    rng, cfg, prompt = np.random.default_rng(0), model.cfg, sizes.PROMPT
    words = rng.integers(4, cfg.llama.vocab_size, (rows, prompt), np.int32)
    codes = rng.integers(0, cfg.vq.codebook_size, (rows, cfg.vq.tokens), np.int32)
    at = np.tile(np.arange(cfg.vq.tokens, dtype=np.int32) + prompt - 1, (rows, 1))
    weight = np.full(codes.shape, 1 / codes.size, np.float32)
    batch = batches.Batch(
        ids=np.concatenate([words, codes], axis=1),
        kind=np.repeat(np.array([[batches.TEXT] * prompt + [batches.CODE] * cfg.vq.tokens], np.int32), rows, axis=0),
        mask=np.ones((rows, prompt + cfg.vq.tokens), bool),
        codes=batches.Targets(at=at, ids=codes, weight=weight, group=np.zeros_like(codes)),
    )
    trainable = train_step.trainable_leaves(params, FROZEN)
    decays = sharding.match(optim.DECAY_RULES, train_step.split(params, trainable)[0])
    tx = optim.adamw(1e-4, decay_mask=decays)
    state = train_step.init_state(params, tx, trainable)

    def forward(params, batch):
        return token_logps(model, params, batch, Sampling(cfg_weight=1.0))

    def loss(outputs, batch):
        return losses.sft_loss(outputs["codes"], batch.codes.weight), {}

    step = train_step.make_train_step(forward, loss, tx, trainable)

    def run():
        nonlocal state
        state, metrics = step(state, batch)
        return float(metrics["loss"])

    return run


def task(name: str, size: str, params=None, **changes):
    """The function of a task, as a command would run it."""
    heap.keep()
    model = janus_jax.Janus(sizes.SIZES[size].changed(changes))
    params = init_params(model, jax.random.key(0)) if params is None else params
    if name == "draw":
        laid = prepared(model, params)
        return lambda: draw(model, laid, sizes.PICTURES)
    if name == "introspect":
        return introspect(model, params)
    if name == "sft":
        return sft_step(model, params, sizes.SFT_ROWS[size])
    if name == "rl":
        return ours_rl.rl_step(model, params, size)
    raise ValueError(name)

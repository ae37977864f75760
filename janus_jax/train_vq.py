"""Trains the picture tokenizer: python -m janus_jax.train_vq --config configs/shapes_vq.py --workdir DIR

Loss: contrast-weighted squared reconstruction error, the VQ-VAE codebook and commitment terms on unit vectors (van den Oord et al. 2017, arXiv
1711.00937; unit-length codes as in ViT-VQGAN, arXiv 2110.04627), and an entropy term that keeps single assignments sharp
and the use of the codebook even (as in MAGVIT-v2, arXiv 2310.05737).

Two phases: first the same autoencoder without quantisation, then k-means over its latents gives the codebook, and training
goes on with codes. Started with codes, a small tokenizer gives up colour first and spends its steps on getting it back.
Resumes from the workdir by itself; the finished tokenizer is DIR/model.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from scipy.cluster.vq import kmeans2

from janus_jax import cli, optim, train_step
from janus_jax.checkpoint import save_model
from janus_jax.data import pictures
from janus_jax.loop import fit
from janus_jax.models.vq import VQ, VQConfig, unit
from janus_jax.sharding import make_mesh
from janus_jax.shapes import text, verify


def make_forward(model: VQ, quantised: bool):
    """forward(params, pixels f32[B,h,w,3]) -> {pixels, z, zq, codes, similarity}; quantised: the decoder sees the codes
    (straight-through estimator), else the unit latents themselves."""

    def forward(params, pixels):
        def apply(method, *args):
            return model.apply({"params": params}, *args, method=method)

        z = unit(apply("encode", pixels))
        codes = apply("quantize", z)
        zq = apply("lookup", codes).reshape(z.shape)
        return {
            "pixels": apply("decode_latents", z + jax.lax.stop_gradient(zq - z) if quantised else z),
            "z": z,
            "zq": zq,
            "codes": codes,
            "similarity": z.reshape(-1, z.shape[-1]) @ unit(params["codebook"]).T,
        }

    return forward


def make_loss(quantised: bool, commitment: float, entropy: float, temperature: float):
    """loss(outputs, pixels) -> (f32[], metrics). Weights of the commitment and entropy terms; softmax temperature."""

    def loss(outputs, pixels):
        error = outputs["pixels"] - pixels
        # Squared error, heavier where a picture departs from its own mean: on a plain ground the few coloured pixels
        # carry all that is to be learnt, and an absolute error's gradient from the rest never fades.
        contrast = jnp.sqrt(jnp.mean(jnp.square(pixels - jnp.mean(pixels, (1, 2), keepdims=True)), -1, keepdims=True))
        emphasis = contrast / jnp.mean(contrast, (1, 2), keepdims=True)
        reconstruction = jnp.mean((0.2 + emphasis) * jnp.square(error))
        z, zq = outputs["z"], outputs["zq"]
        codebook = jnp.mean(jnp.sum(jnp.square(jax.lax.stop_gradient(z) - zq), -1))
        commit = jnp.mean(jnp.sum(jnp.square(z - jax.lax.stop_gradient(zq)), -1))
        logps = jax.nn.log_softmax(outputs["similarity"] / temperature)
        each = -jnp.mean(jnp.sum(jnp.exp(logps) * logps, -1))
        mean = jnp.mean(jnp.exp(logps), 0)
        spread = -jnp.sum(mean * jnp.log(mean + 1e-9))
        counts = jnp.zeros(mean.shape).at[outputs["codes"].reshape(-1)].add(1.0)
        share = counts / counts.sum()
        total = reconstruction
        if quantised:
            total += codebook + commitment * commit + entropy * (each - spread)
        return total, {
            "reconstruction": reconstruction,
            "commitment": commit,
            "codes_used": jnp.sum(counts > 0).astype(jnp.float32),
            "perplexity": jnp.exp(-jnp.sum(share * jnp.log(share + 1e-9))),
        }

    return loss


def kmeans_codebook(latents, size: int, seed: int):
    """Codebook f32[size, E] of unit rows by k-means over unit latents f32[..., E]. Most latents of a plain background are
    alike, so duplicates (to two digits) count once."""
    points = np.unique(np.round(latents.reshape(-1, latents.shape[-1]), 2), axis=0)
    centres, _ = kmeans2(points, size, iter=15, minit="++" if len(points) > size else "points", rng=np.random.default_rng(seed))
    return (centres / np.maximum(np.linalg.norm(centres, axis=-1, keepdims=True), 1e-6)).astype(np.float32)


def verifier_cap(model: VQ, params, side: int, count: int = 600, seed: int = 1) -> float:
    """Share of right pictures of training and held-out prompts that the verifier still accepts after encode and
    decode: no model that draws with these codes can be expected to do better."""
    rng = np.random.default_rng(seed)
    prompts = text.held_out_prompts(count // 12) + [text.train_prompt(rng) for _ in range(count // 2)]
    asks = [text.parse(prompt) for prompt in prompts]
    originals = np.stack([pictures.right_picture(rng, ask, side) for ask in asks])
    apply = jax.jit(lambda x: model.apply({"params": params}, x, method="__call__"))
    decoded = np.concatenate([apply(part / np.float32(127.5) - 1) for part in np.split(originals, len(originals) // 50)])
    decoded = np.clip((decoded + 1) * 127.5, 0, 255).astype(np.uint8)
    return float(np.mean([verify.matches(ask, verify.read(p)) for ask, p in zip(asks, decoded, strict=True)]))


def main(argv):
    config, workdir = cli.parse_config(argv, __doc__)
    cfg = VQConfig(**config.vq)
    model = VQ(cfg)
    mesh = make_mesh(jax.device_count(), 1, 1)
    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    by_row = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    sample = jax.ShapeDtypeStruct((1, cfg.image_size, cfg.image_size, 3), jnp.float32)

    def initial():
        params = model.init(jax.random.key(config.seed), jnp.zeros(sample.shape))["params"]
        return train_step.init_state(params, tx, jax.tree.map(lambda _: True, params))

    def optimizer(peak):
        schedule = optim.warmup_cosine(peak, config.final_learning_rate, config.warmup, config.steps)
        return optim.adamw(schedule, weight_decay=config.weight_decay)

    tx = optimizer(config.learning_rate)
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated), jax.eval_shape(initial)
    )
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)

    def place(batch):
        return jax.make_array_from_process_local_data(by_row, batch)

    def phase(name, quantised, tx, state, seed):
        step = train_step.make_train_step(
            make_forward(model, quantised),
            make_loss(quantised, config.commitment, config.entropy, config.temperature),
            tx,
            jax.tree.map(lambda _: True, abstract.params),
            state_shardings=shardings,
            batch_shardings=by_row,
        )
        shard = (jax.process_index(), jax.process_count())
        dataset = pictures.batches(config.pictures, cfg.image_size, config.batch, seed, shard)
        return fit(workdir / name, name, state, step, dataset, place, config, abstract)

    with jax.set_mesh(mesh):
        state, finished = phase("continuous", False, tx, jax.jit(initial, out_shardings=shardings)(), config.seed)
        if finished:
            held = pictures.batches(config.pictures, cfg.image_size, 256, config.seed + 1)
            latents = jax.jit(lambda params, x: unit(model.apply({"params": params}, x, method="encode")))(
                state.params, next(iter(held))
            )
            params = {**state.params, "codebook": kmeans_codebook(np.asarray(latents), cfg.codebook_size, config.seed)}
            start = jax.jit(lambda p: train_step.init_state(p, tx, jax.tree.map(lambda _: True, p)), out_shardings=shardings)
            state, finished = phase("codes", True, optimizer(config.codes_learning_rate), start(params), config.seed + 2)
        if finished:
            save_model(workdir / "model", {"kind": "vq", "vq": dataclasses.asdict(cfg)}, state.params, {})
            print(f"verifier accepts {verifier_cap(model, state.params, cfg.image_size):.4f} of reconstructed right pictures")


if __name__ == "__main__":
    cli.run(main)

"""Trains the picture tokenizer: python -m janus_jax.train_vq --config configs/shapes_vq.py --workdir DIR

Loss: contrast-weighted squared reconstruction error, the VQ-VAE codebook and commitment terms on unit vectors (van
den Oord et al. 2017, arXiv 1711.00937; unit-length codes as in ViT-VQGAN, arXiv 2110.04627), and an entropy term
that keeps single assignments sharp and the use of the codebook even (as in MAGVIT-v2, arXiv 2310.05737).

Three phases. First the same autoencoder without quantisation; then k-means over its latents gives the codebook, and
training goes on with codes (started with codes, a small tokenizer gives up colour first and spends its steps on
getting it back). Last, all codes that stand for plain ground are merged into one and the rest learns to live with it:
normalisation and attention see the whole picture, so a tokenizer likes to hide what it knows in the ground, in a
hundred codes that a drawing model would have to guess.
Resumes from the workdir by itself; the finished tokenizer is DIR/model.
"""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from scipy.cluster.vq import kmeans2

from janus_jax import cli
from janus_jax.checkpoints.model_folder import save_model
from janus_jax.data import pictures
from janus_jax.errors import UserError
from janus_jax.models.vq import VQ, VQConfig, unit
from janus_jax.parallel import agree, hosts, shards
from janus_jax.parallel.sharding import make_mesh
from janus_jax.shapes import moments, text, verify
from janus_jax.shapes.world import SHIPPED, WORLDS, World
from janus_jax.training import lock, optim
from janus_jax.training import step as train_step
from janus_jax.training.loop import AHEAD, Job, fit, supervised
from janus_jax.training.settings import check_vq
from janus_jax.training.workdir import FILE, same_settings


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
    """Codebook f32[size, E] of unit rows by k-means over unit latents f32[..., E]. Most latents of a plain
    background are alike, so duplicates (to two digits) count once."""
    points = np.unique(np.round(latents.reshape(-1, latents.shape[-1]), 2), axis=0)
    centres, _ = kmeans2(
        points, size, iter=15, minit="++" if len(points) > size else "points", rng=np.random.default_rng(seed)
    )
    return (centres / np.maximum(np.linalg.norm(centres, axis=-1, keepdims=True), 1e-6)).astype(np.float32)


def merge_ground(codebook, codes, pictures_u8):
    """The codebook with the rows of all ground codes equal to the most used one's, and how many there were.

    codes i32[N, I] of pictures u8[N, s, s, 3]. A code is one of the ground if most patches it stands for show nothing
    but their picture's median colour. The nearest row with the lowest index wins, so only one of equal rows is ever
    used.
    """
    pixels = pictures_u8.astype(np.int32)
    N, side = pixels.shape[:2]
    grid = round(codes.shape[1] ** 0.5)
    median = np.median(pixels.reshape(N, -1, 3), axis=1)[:, None, None]
    distance = np.abs(pixels - median).sum(-1).reshape(N, grid, side // grid, grid, side // grid)
    plain = distance.max((2, 4)).reshape(N, -1) < 60
    used = np.bincount(codes.reshape(-1), minlength=len(codebook))
    on_ground = np.bincount(codes[plain], minlength=len(codebook))
    ground = np.flatnonzero((on_ground > 0.5 * used) & (used > 0))
    merged = np.array(codebook)
    merged[ground] = merged[ground[np.argmax(on_ground[ground])]]
    return merged, len(ground)


def verifier_cap(model: VQ, params, world: World = SHIPPED, count: int = 600, seed: int = 1, whole=None) -> tuple:
    """Shares of right pictures of training and test prompts that the verifier, and the second one, still accept after
    encode and decode: no model that draws with these codes can be expected to do better. whole: the sharding of an
    array that every process of a pod can read."""
    rng = np.random.default_rng(seed)
    prompts = text.held_out_prompts(count // 12, world=world)
    prompts += [text.train_prompt(rng, world=world) for _ in range(count // 2)]
    asks = [text.parse(prompt, world) for prompt in prompts]
    originals = np.stack([pictures.right_picture(rng, ask, model.cfg.image_size, world) for ask in asks])
    apply = jax.jit(lambda x: model.apply({"params": params}, x, method="__call__"), out_shardings=whole)
    decoded = np.concatenate(
        [apply(part / np.float32(127.5) - 1) for part in np.split(originals, len(originals) // 50)]
    )
    decoded = np.clip((decoded + 1) * 127.5, 0, 255).astype(np.uint8)
    return tuple(
        float(np.mean([verify.matches(ask, read(p, world)) for ask, p in zip(asks, decoded, strict=True)]))
        for read in (verify.read, moments.read)
    )


PHASES = ("continuous", "codes", "merged")
HELD = 512  # pictures that the codebook begins with, and that tell which codes stand for ground


class Place(NamedTuple):
    """Where the training takes place. by_row: of a batch; whole: of what every process of a pod can read."""

    workdir: Path
    mesh: jax.sharding.Mesh
    by_row: jax.sharding.NamedSharding
    whole: jax.sharding.NamedSharding


def phase(config, place: Place, index: int, model: VQ, params) -> tuple[Path, Job, ConfigDict]:
    """(workdir, job, settings) of one phase that begins with `params`. Raises UserError where it was begun with other
    settings; its steps are final once a later phase has begun."""
    workdir, quantised = place.workdir / PHASES[index], index > 0
    settings = ConfigDict(config.to_dict())
    for key in ("steps", "learning_rates", "entropy"):  # one for each phase
        del settings[key]
        settings[key] = config[key][index]
    over = any((place.workdir / later / FILE).exists() for later in PHASES[index + 1 :])
    same_settings(workdir, settings, ("log_every", "save_every", "writers") + (() if over else ("steps",)))
    schedule = optim.warmup_cosine(settings.learning_rates, config.final_learning_rate, config.warmup, settings.steps)
    built = train_step.build(
        make_forward(model, quantised),
        make_loss(quantised, config.commitment, settings.entropy, config.temperature),
        optim.adamw(schedule, weight_decay=config.weight_decay),
        params,
        train_step.trainable_leaves(params, ("codebook",) if PHASES[index] == "merged" else ()),
        place.mesh,
        place.by_row,
        rules=((r".*", jax.sharding.PartitionSpec()),),
    )
    rows, seed = shards.rows(place.by_row, config.batch), config.seed + 2 * index
    world = WORLDS[config.world]
    dataset = pictures.batches(config.pictures, model.cfg.image_size, config.batch, seed, rows, world)
    return workdir, supervised(built, [params], dataset, place.by_row), settings


def with_codebook(config, place: Place, model: VQ, params, held):
    """The parameters with a codebook of k-means over the latents of some pictures `held` f32[N,s,s,3]."""
    encode = jax.jit(lambda p, x: unit(model.apply({"params": p}, x, method="encode")), out_shardings=place.whole)
    latents = np.asarray(encode(params, held))
    return {**params, "codebook": agree.same(kmeans_codebook(latents, model.cfg.codebook_size, config.seed))}


def with_one_ground(place: Place, model: VQ, params, held):
    """The parameters with one code for plain ground, as it is found in pictures `held`."""
    encode = jax.jit(lambda p, x: model.apply({"params": p}, x, method="encode_codes"), out_shardings=place.whole)
    codes = np.asarray(encode(params, held))
    codebook, merged = merge_ground(
        np.asarray(params["codebook"]), codes, np.round((held + 1) * 127.5).astype(np.uint8)
    )
    if agree.is_first():
        print(f"merged {merged} codes of plain ground into one")
    return {**params, "codebook": agree.same(codebook)}


def train(config, place: Place, model: VQ, stop) -> None:
    """Runs the three phases on a mesh in the context, and writes the tokenizer."""
    sample = jnp.zeros((1, model.cfg.image_size, model.cfg.image_size, 3))
    params = jax.jit(model.init)(jax.random.key(config.seed), sample)["params"]
    params = jax.tree.map(np.asarray, params)  # the same on all processes
    size, world = model.cfg.image_size, WORLDS[config.world]
    held = next(iter(pictures.batches(config.pictures, size, HELD, config.seed + 1, world=world)))
    for index, name in enumerate(PHASES):
        if name == "codes":
            params = with_codebook(config, place, model, params, held)
        if name == "merged":
            params = with_one_ground(place, model, params, held)
        workdir, job, settings = phase(config, place, index, model, params)
        state, finished = fit(workdir, name, job, settings, stop, log_every=config.log_every, ahead=AHEAD)
        if not finished:
            return
        params = state.params
    description = {"kind": "vq", "vq": dataclasses.asdict(model.cfg), "world": world.name}
    save_model(place.workdir / "model", description, params, {})
    accepted = verifier_cap(model, params, world, whole=place.whole)
    if agree.is_first():
        one, other = accepted
        print(f"verifier accepts {one:.4f} of reconstructed right pictures, the second one {other:.4f}")
        place = place.workdir
        cli.finished(
            "the picture tokenizer",
            place / "model",
            f"cache_codes --tokenizer {place} --data-dir {place.parent / 'data'} --out {place.parent / 'cache.npz'}",
            f"train_sft --config configs/shapes_base.py --workdir {place.parent / 'base'} --config.vq={place} "
            f"--config.cache={place.parent / 'cache.npz'}",
        )


def main(argv):
    config, workdir = cli.parse_config(argv, __doc__)
    check_vq(config)
    hosts.start(config)
    if config.batch % jax.device_count():
        raise UserError(
            f"a batch of {config.batch} does not divide by {jax.device_count()} devices: change --config.batch"
        )
    mesh = make_mesh(jax.device_count(), 1, 1)
    places = [jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes)) for axes in (["data"], [])]
    with lock.held(workdir) as release, cli.Stop(release) as stop, jax.set_mesh(mesh):
        train(config, Place(workdir, mesh, *places), VQ(VQConfig(**config.vq)), stop)


if __name__ == "__main__":
    cli.run(main, hosts.leave)

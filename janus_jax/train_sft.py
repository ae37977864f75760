"""Stage 1, supervised: python -m janus_jax.train_sft --config configs/shapes_sft.py --workdir DIR

Three tasks in one mixture: draw, judge, redraw (RECIPE: 10:10:15, the judge's Yes/No tokens weigh 0.8 of its share).
Resumes from the workdir by itself; the finished model is DIR/model.
"""

import jax
import jax.numpy as jnp
import numpy as np

from janus_jax import cli, density, loading, local, losses, optim, pod, sharding, train_step
from janus_jax.batch import GROUPS, targets_of, with_targets
from janus_jax.data import cache, sft
from janus_jax.errors import UserError
from janus_jax.loop import fit
from janus_jax.models.janus import Janus, JanusConfig, init_params
from janus_jax.models.logps import token_logps
from janus_jax.shapes.vocabulary import train_tokenizer
from janus_jax.tokens import Tokenizer


def make_forward(model: Janus):
    """forward(params, batches) -> list of token_logps, one per bucket."""
    sampling = density.Sampling(cfg_weight=1.0)

    def forward(params, batches):
        return [token_logps(model, params, batch, sampling) for batch in batches]

    return forward


def make_prepare(shares):
    """prepare(batches): the weights normalised over all buckets, see losses.sft_weights."""

    def prepare(batches):
        targets = [(t.weight, t.group) for *_, t in targets_of(batches)]
        return with_targets(batches, weight=losses.sft_weights(targets, shares))

    return prepare


def loss(outputs, batches):
    """Stage 1's loss over all buckets: (f32[], metrics), where the metrics are each group's part of it."""
    total = 0.0
    parts = dict.fromkeys(GROUPS, 0.0)
    for name, i, targets in targets_of(batches):
        logps = outputs[i][name]
        total += losses.sft_loss(logps, targets.weight)
        for group, label in enumerate(GROUPS):
            parts[label] += losses.sft_loss(logps, jnp.where(targets.group == group, targets.weight, 0.0))
    return total, parts


def world_tokenizer(workdir) -> Tokenizer:
    """The embedded world's tokenizer: the one this workdir was started with, so that a resumed run cannot change its
    ids."""
    path = workdir / Tokenizer.FILES[0]

    def write():
        if path.is_file():
            return
        scratch = path.with_suffix(".tmp")
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            scratch.write_bytes(train_tokenizer().content)
            scratch.rename(path)
        except OSError as error:
            raise UserError(f"cannot write to {workdir}: {error.strerror}; choose another --workdir") from error

    pod.first(write)
    return Tokenizer.from_folder(workdir)


def initial_model(config, mesh, workdir):
    """(model, params, processor) that stage 1 starts from.

    Sizes: config.preset, with config.model's entries (as in JanusConfig.to_dict) in place of the preset's. Parameters:
    config.init, an own checkpoint to go on from; or fresh ones around config.vq, a trained picture tokenizer, with
    the embedded world's text tokenizer.
    """
    cfg = configured_model(config)
    if config.init:
        loading.same_sizes(config.init, cfg)
        _, params, processor = loading.load(config.init, mesh=mesh)
        return Janus(cfg), params, processor  # the configuration says how to compute, the checkpoint how large
    vq, vq_params = loading.load_vq(config.vq)
    if vq.cfg != cfg.vq:
        raise UserError(
            f"{config.vq} is a picture tokenizer of other sizes than the model: train it with the model's vq sizes"
        )
    model = Janus(cfg)
    params = init_params(model, jax.random.key(config.seed), mesh=mesh)
    vq_params = jax.tree.map(lambda new, old: jax.device_put(np.asarray(new), old.sharding), vq_params, params["vq"])
    params = {**params, "vq": vq_params}
    return model, params, loading.processor_of(cfg, world_tokenizer(workdir))


def configured_model(config) -> JanusConfig:
    """The sizes that a configuration asks for. Raises UserError for an unknown preset or entry."""
    try:
        preset = JanusConfig.preset(config.preset)
    except ValueError as error:
        raise UserError(f"{error}: set --config.preset") from error
    return preset.changed(config.model)


def main(argv):
    config, workdir = cli.parse_config(argv, __doc__)
    cli.config_at_least(1, config, "steps", "log_every", "save_every", "micro_batches")
    cli.config_at_least(0, config, "seed")
    pod.start(config)
    if not sum(config.shares) > 0:
        raise UserError("all of config.shares are 0: give a task a share")
    mesh = sharding.mesh_of(config.mesh)
    buckets = [sft.Bucket(length, tuple(sft.Kind(*kind) for kind in kinds)) for length, kinds in config.buckets]
    split_by = mesh.shape["data"] * mesh.shape["fsdp"] * config.micro_batches
    for bucket in buckets:
        if bucket.rows % split_by:
            raise UserError(
                f"a bucket of {bucket.rows} rows does not divide by mesh x micro_batches = {split_by}: "
                "change config.buckets"
            )
    with jax.set_mesh(mesh):
        groups = cache.load(config.cache)
        model, params, processor = initial_model(config, mesh, workdir)
        trainable = train_step.trainable_leaves(params, config.frozen)
        kept = train_step.split(params, trainable)[0]
        decays = sharding.match(optim.DECAY_RULES, kept)
        schedule = optim.warmup_cosine(
            config.learning_rate, config.final_learning_rate, config.warmup, config.decay_steps or config.steps
        )
        try:
            settings = {"weight_decay": config.weight_decay, "decay_mask": decays}
            tx = optim.named(config.optimizer, schedule, kept, **settings)
        except ValueError as error:
            raise UserError(f"{error}: set --config.optimizer") from error
        by_row = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(("data", "fsdp")))
        built = train_step.build(
            make_forward(model),
            loss,
            tx,
            params,
            trainable,
            mesh,
            by_row,
            prepare=make_prepare(losses.sft_shares(*config.shares, verdict_share=config.verdict_share)),
            micro_batches=config.micro_batches,
        )
        maker = sft.RowMaker(
            groups, processor.tokenizer, model.cfg.siglip.tokens, config.drop_prompt, config.judged_right
        )
        mine = [local.rows(by_row, bucket.rows) for bucket in buckets]
        dataset = sft.steps(maker, buckets, config.seed, config.steps, mine)

        def place(batch):
            return jax.tree.map(lambda x: jax.make_array_from_process_local_data(by_row, x), batch)

        state, finished = fit(workdir, "sft", built, params, dataset, place, config, cli.Stop())
        if finished:
            drawn_with = {"cfg_weight": config.cfg_weight, "temperature": config.temperature}
            loading.save(workdir / "model", model, state.params, processor, drawn_with=drawn_with)


if __name__ == "__main__":
    cli.run(main, pod.leave)

"""Trains stage 1, supervised: python -m janus_jax.train_sft --config configs/shapes_sft.py --workdir DIR

Three tasks in one mixture: draw, judge, redraw (RECIPE: 10:10:15, the judge's Yes/No tokens weigh 0.8 of its share);
with config.edits, a cache of edits, further ones: edit, and the judging of edits; with config.draws, right pictures
that draw learns from in place of config.cache's.
Resumes from the workdir by itself; the finished model is DIR/model.
"""

import shlex

import jax
import numpy as np

from janus_jax import cli
from janus_jax.checkpoints import loading
from janus_jax.data import cache, mixture
from janus_jax.errors import UserError
from janus_jax.models.janus import Janus, init_params
from janus_jax.parallel import agree, hosts, sharding, shards
from janus_jax.results.report import write as write_report
from janus_jax.sequences.batch import padding
from janus_jax.sequences.grammar import Grammar
from janus_jax.sequences.tokens import Tokenizer
from janus_jax.shapes import text
from janus_jax.shapes.verify import RIGHT
from janus_jax.shapes.vocabulary import train_tokenizer
from janus_jax.shapes.world import SHIPPED, World
from janus_jax.training import lock, settings, sft
from janus_jax.training.loop import AHEAD, fit, supervised
from janus_jax.training.workdir import same_settings

# What a training may be resumed with otherwise: how long, how often, where, and what its model says of drawing.
MAY_CHANGE = ("steps", "log_every", "save_every", "writers", "mesh", "micro_batches", "cfg_weight", "temperature")


def world_tokenizer(workdir, world: World) -> Tokenizer:
    """An embedded world's tokenizer: the one this workdir was started with, so that a resumed run cannot change its
    ids."""
    path = workdir / Tokenizer.FILES[0]

    def write():
        if path.is_file():
            return
        scratch = path.with_suffix(".tmp")
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            scratch.write_bytes(train_tokenizer(world=world).content)
            scratch.rename(path)
        except OSError as error:
            raise UserError(f"cannot write to {workdir}: {error.strerror}; choose another --workdir") from error

    agree.first(write)
    return Tokenizer.from_folder(workdir)


def initial_model(config, mesh, workdir):
    """(model, params, processor) that stage 1 starts from.

    Sizes: config.preset, with config.model's entries (as in JanusConfig.to_dict) in place of the preset's. Parameters:
    config.init, an own checkpoint to go on from; or fresh ones around config.vq, a trained picture tokenizer, with
    the embedded world's text tokenizer.
    """
    cfg = sft.configured_model(config)
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
    world = loading.world_of(config.vq)
    return model, params, loading.processor_of(cfg, world_tokenizer(workdir, world), world=world.name)


def groups_of(config, world: World = SHIPPED) -> cache.Groups:
    """What the rows are made of: config.cache and config.edits (several files each, with commas), of which one may be
    empty; of the embedded world's prompts those of config.categories. Raises UserError where both are empty, or no
    prompt is left."""
    loaded = _loaded(config.cache)
    try:
        loaded += _loaded(config.edits)
    except UserError as error:
        raise UserError(f"{error}, or set --config.edits= for none") from error
    if not loaded:
        raise UserError("there is nothing to learn from: set --config.cache to a cache of labelled pictures")
    groups = cache.join(loaded)
    if not config.categories:
        return groups
    try:
        wanted = [
            p
            for p, prompt in enumerate(groups.prompts)
            if groups.source[p] >= 0 or text.parse(prompt, world).category in config.categories
        ]
    except ValueError as error:
        raise UserError(f"{error}; config.categories is for the embedded world's prompts: set it to ()") from error
    if not wanted:
        raise UserError(f"no prompt of {config.cache} is of config.categories: choose others, or () for all")
    return cache.chosen(groups, wanted)


def _loaded(paths: str) -> list[cache.Groups]:
    """The caches of some files, with commas between them."""
    return [cache.load(path) for path in paths.split(",") if path]


def draws_of(config, groups: cache.Groups) -> cache.Groups | None:
    """What `draw` rows learn from in place of `groups`: config.draws (several files with commas); None: from `groups`.
    Raises UserError for edits, and for codes of another picture tokenizer than that of `groups`."""
    loaded = _loaded(config.draws)
    if not loaded:
        return None
    draws = cache.join(loaded)
    if draws.codes.shape[1] != groups.codes.shape[1]:
        raise UserError(f"config.draws was made with another picture tokenizer than {config.cache or config.edits}")
    of_prompts = np.repeat(draws.source < 0, np.diff(draws.start))
    if not (of_prompts & (draws.score >= RIGHT)).any():
        raise UserError(f"{config.draws} has no right picture of a prompt: make it with janus_jax.cache_codes --draws")
    return draws


def dataset_of(config, buckets, by_row, model, processor, groups, world: World = SHIPPED, draws=None):
    """The stage's steps from a cache's groups: each a tuple of this host's rows of every bucket. draws: see
    draws_of."""
    grammar = Grammar.of(model.cfg, processor.tokenizer)
    maker = mixture.RowMaker(
        *(groups, grammar, config.drop_prompt, config.judged_right, config.mended, world, draws, config.scrambled)
    )
    mine = [shards.rows(by_row, bucket.rows) for bucket in buckets]
    return mixture.steps(maker, buckets, config.seed, config.steps, mine)


def next_commands(config, workdir, prompts, source) -> list[str]:
    """What to do with the model. prompts: that it was taught; source: of each its source picture where it is an
    instruction, or -1, i64[P]."""
    tasks = {task for _, kinds in config.buckets for task, *_ in kinds}
    of_edits = np.asarray(source) >= 0  # all of them where config.draws alone has prompts
    edits = "edit" in tasks and (not tasks & {"draw", "redraw"} or bool(of_edits.all()))
    prompt = str(prompts[np.argmax(of_edits == edits)])
    asked = f"--image FILE --instruction {shlex.quote(prompt)}" if edits else f"--prompt {shlex.quote(prompt)}"
    drawn = f"{'edit' if edits else 'generate'} --checkpoint {workdir} {asked} --out {workdir / 'drawn'}"
    if not tasks & {"judge", "judge_edit"}:  # stage 2 needs a judge's words
        return [drawn]
    trained = f"--workdir {workdir.parent / 'rl'} --config.init={workdir}"
    if config.preset != "shapes":
        given = "--config.task=edit --config.edit_prompts=EDITS.jsonl" if edits else "--config.prompts=PROMPTS.txt"
        trained += f" {given} --config.reward.kind=..."
        return [drawn, f"train_rl --config configs/janus_pro_{config.preset}_rl.py {trained}"]
    suite = " --suite shapes_edit" if edits else ""
    return [
        drawn,
        f"evaluate --checkpoint {workdir}{suite} --out {workdir / 'eval.json'}",
        f"train_rl --config configs/shapes{'_edit' if edits else ''}_rl.py {trained}",
    ]


def main(argv):
    config, workdir = cli.parse_config(argv, __doc__)
    settings.check_sft(config)
    hosts.start(config)
    mesh = sharding.mesh_of(config.mesh)
    buckets = sft.buckets_of(config, mesh)
    with lock.held(workdir) as release, cli.Stop(release) as stop, jax.set_mesh(mesh):
        same_settings(workdir, config, MAY_CHANGE)
        named = loading.named_world(config.init or config.vq)  # None: a Janus-Pro, also when it is trained
        world = named or SHIPPED
        groups = groups_of(config, world)
        draws = draws_of(config, groups)
        model, params, processor = initial_model(config, mesh, workdir)
        built, by_row = sft.build(config, model, params, mesh)
        given = [params]  # away: the state is a copy, and two would not fit
        del params
        dataset = dataset_of(config, buckets, by_row, model, processor, groups, world, draws)
        job = supervised(built, given, dataset, by_row, lambda rows: {"padding": padding(rows)})
        state, finished = fit(workdir, "sft", job, config, stop, log_every=config.log_every, ahead=AHEAD)
        if finished:
            drawn_with = {"cfg_weight": config.cfg_weight, "temperature": config.temperature}
            loading.save(workdir / "model", model, state.params, processor, drawn_with=drawn_with, world=named)
            if agree.is_first():
                print(f"what happened on the way: {write_report(workdir)}")
                cli.finished(
                    "the model", workdir / "model", *next_commands(config, workdir, groups.prompts, groups.source)
                )


if __name__ == "__main__":
    cli.run(main, hosts.leave)

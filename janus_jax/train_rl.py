"""Trains stage 2, by reinforcement learning: python -m janus_jax.train_rl --config configs/shapes_rl.py --workdir DIR

What differs from the paper and from the released code, by default: the density trained is the one sampled (guidance and
temperature included, the verdict over {Yes, No}), end-of-reason tokens are trained, embeddings carry gradients, the
reference scores with its own embeddings, pictures are drawn again only where the model says No.
--config.released=True does all of this as the released code does, for comparison. Each step: draw a group
of trajectories per prompt, judge the pictures, turn rewards into advantages (`credit`), and take `updates` clipped
policy-gradient steps through the very `make_train_step` of stage 1. Resumes from the workdir by itself: the prompts
and the random bits of a step are functions of (seed, step), and a rollout in flight is in the checkpoint. The finished
model is DIR/model. In a pod all processes draw together, and each has its share of the pictures judged.
"""

import dataclasses
import shlex
from pathlib import Path

import jax
from ml_collections import ConfigDict

from janus_jax import cli
from janus_jax.checkpoints import loading
from janus_jax.data.edits import read_edits
from janus_jax.data.prompts import read_prompts
from janus_jax.errors import UserError
from janus_jax.parallel import agree, hosts, sharding
from janus_jax.results.report import write as write_report
from janus_jax.results.storyboard import storyboard
from janus_jax.rewards import settings, shapes
from janus_jax.rewards.judge import as_judge, named
from janus_jax.rewards.own_model import SelfJudge
from janus_jax.rl import ppo
from janus_jax.rl.advantages import ESTIMATORS
from janus_jax.rl.credit import CREDITS
from janus_jax.rl.job import job_of, storyboards
from janus_jax.rl.programs import check_rows
from janus_jax.rl.requests import Files
from janus_jax.rl.retention import (
    answered,
    check_lengths,
    held_out_questions,
    labelled_pictures,
    listed_pictures,
    retention,
)
from janus_jax.rl.stage import assemble
from janus_jax.training import lock
from janus_jax.training.loop import fit
from janus_jax.training.settings import check_rl
from janus_jax.training.workdir import same_settings

# What a training may be resumed with otherwise: how long, how often, where, and whom it asks how.
MAY_CHANGE = (
    *("steps", "save_every", "writers", "storyboard_every", "max_logp_gap", "gap_every"),
    *("most_missing", "pause_seconds"),
    *("mesh", "micro_batches", "rollout_rows"),
    *(f"reward.{name}" for name in ("url", "timeout_s", "retries", "concurrency", "api_key_env")),
)


def main(argv):
    config, workdir = cli.parse_config(argv, __doc__)
    train(config, workdir)


def train(config, workdir, judge=None) -> None:
    """Runs stage 2, or goes on with it, in a workdir. config: a ConfigDict, as configs/shapes_rl.py makes one; judge: a
    function(requests, pictures) that returns {name: N scores in [0, 1]}, in place of config.reward's.
    The finished model is WORKDIR/model. Raises UserError for what can be mended."""
    check_rl(config, CREDITS, ESTIMATORS)
    hosts.start(config)
    if jax.process_count() > 1 and config.released:
        raise UserError("rows of the released layout depend on those beside them: start one process")
    if judge is None:
        _check_reward(config)
    else:
        config = _with_given(config, judge)
    mesh, workdir = sharding.mesh_of(config.mesh), Path(workdir)
    check_rows(config, mesh)
    given = None if judge is None else as_judge(judge)
    files, labelled = _files(config), _labelled(config)
    try:
        precision = jax.default_matmul_precision(config.matmul_precision or None)
    except ValueError as error:
        raise UserError(f"{error}: set --config.matmul_precision") from error
    with lock.held(workdir) as release, cli.Stop(release) as stop, jax.set_mesh(mesh), precision:
        same_settings(workdir, config, MAY_CHANGE)
        stage, initial = assemble(config, mesh, files)
        world = loading.named_world(config.init)
        stage, judge = (stage, given) if given else _judged(config, stage, initial, mesh)
        look_back = _look_back(config, stage, initial, labelled) if config.retention_every else None
        show = storyboards(workdir, storyboard, write_report)
        carry, finished = fit(workdir, "rl", job_of(config, stage, judge, initial, look_back, show, stop), config, stop)
        if finished:
            drawn_with = {"cfg_weight": config.cfg_weight, "temperature": config.temperature}
            trained = ppo.without_value_head(carry.state.params)
            about = {"drawn_with": drawn_with, "world": world}
            loading.save(workdir / "model", stage.model, trained, stage.processor, **about)
            if agree.is_first():
                print(f"what happened on the way: {write_report(workdir)}")
                cli.finished("the model", workdir / "model", *next_commands(config, workdir))


def next_commands(config, workdir) -> list[str]:
    """What to do with the model."""
    if config.task == "edit":
        drawn = f"edit --checkpoint {workdir} --image FILE --instruction TEXT --out {workdir / 'edited'}"
        measured = f"evaluate --checkpoint {workdir} --suite shapes_edit --out {workdir / 'eval.json'}"
        return [drawn] if config.edit_prompts else [drawn, measured]
    asked = f"--prompts {shlex.quote(config.prompts)}" if config.prompts else '--prompt "three green crosses"'
    drawn = f"generate --checkpoint {workdir} {asked} --out {workdir / 'drawn'}"
    return [drawn] if config.prompts else [drawn, f"evaluate --checkpoint {workdir} --out {workdir / 'eval.json'}"]


def _with_given(config, judge):
    """The configuration as the workdir remembers it: judged by this function, and not as config.reward says."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        given = {"kind": "given", "function": named(judge), "weights": config.reward.get("weights", {})}
        config.reward = ConfigDict({**settings.DEFAULTS, **given})
    return config


def _check_reward(config):
    """Says before a model is loaded what is wrong with config.reward."""
    settings.make_judge(config.reward, own=shapes.judge)
    if config.ahead and settings.on_devices(config.reward):
        raise UserError("the model as judge knows only what was drawn last: set --config.ahead=False")


def _files(config) -> Files:
    """Where requests come from; alike on all hosts of a pod, which compute with them together."""
    prompts = edits = None
    if config.prompts and config.task != "edit":
        prompts = agree.read_alike("config.prompts", lambda: read_prompts(config.prompts))
    if config.edit_prompts and config.task != "draw":
        edits = agree.read_alike(
            "config.edit_prompts",
            lambda: read_edits(config.edit_prompts, folder=config.edit_images or None, turns=False),
            lambda found: repr([(edit.instructions, edit.image.stat().st_size) for edit in found]).encode(),
        )
    return Files(prompts, edits)


def _labelled(config):
    """The labelled pictures of a file, or None; alike on all hosts of a pod."""
    if not (config.retention_every and config.retention_pairs):
        return None
    return agree.read_alike(
        "config.retention_pairs",
        lambda: listed_pictures(config.retention_pairs),
        lambda found: b"".join(
            (repr(found.prompts).encode(), found.right.tobytes(), *(image.tobytes() for image in found.images))
        ),
    )


def _judged(config, stage, initial, mesh):
    """(stage, judge) of config.reward. initial: what the model judges with where it is its own judge."""
    batch = config.prompts_per_step * config.group
    own = SelfJudge(stage.model, initial, stage.processor, batch=batch)
    if checkpoint := settings.checkpoint_of(config.reward):
        own = SelfJudge.of_checkpoint(checkpoint, mesh, batch)
    judge = settings.make_judge(config.reward, own=own, world=stage.world)
    if settings.on_devices(config.reward):
        stage = dataclasses.replace(stage, look=own.look)
    return stage, judge


def _look_back(config, stage, initial, labelled):
    """look_back(params) -> the metrics of what is to be retained. labelled: pictures of a file, or None."""
    if labelled is None:
        labelled = labelled_pictures(
            stage.model, stage.programs.cast(initial), config.retention_prompts, world=stage.world
        )
    check_lengths(stage.model, stage.processor, labelled)
    asked = held_out_questions(config.retention_questions, stage.model.cfg.vq.image_size, world=stage.world)

    def look_back(params):
        found = retention(stage.model, params, stage.processor, labelled)
        if asked:
            found["retention_questions"] = answered(stage.model, params, stage.processor, asked, stage.world)
        return found

    return look_back


if __name__ == "__main__":
    cli.run(main, hosts.leave)

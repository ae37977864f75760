"""Stage 2, reinforcement learning: python -m janus_jax.train_rl --config configs/shapes_rl.py --workdir DIR

What differs from the paper and from the released code, by default: the density trained is the one sampled (guidance and
temperature included, the verdict over {Yes, No}), end-of-reason tokens are trained, embeddings carry gradients, the
reference scores with its own embeddings, pictures are drawn again only where the model says No.
--config.released=True does all of this as the released code does, for comparison. Each step: draw a group
of trajectories per prompt, judge the pictures, turn rewards into advantages (`credit`), and take `updates` clipped
policy-gradient steps through the very `make_train_step` of stage 1. Resumes from the workdir by itself: the prompts
and the random bits of a step are functions of (seed, step), and a rollout in flight is in the checkpoint. The finished
model is DIR/model. In a pod all processes draw together, and each has its share of the pictures judged.
"""

import collections
import dataclasses
import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from janus_jax import cli
from janus_jax.checkpoints import loading
from janus_jax.data.prompts import read_prompts
from janus_jax.errors import UserError
from janus_jax.models.janus import Janus
from janus_jax.parallel import hosts, sharding
from janus_jax.results.report import write as write_report
from janus_jax.results.storyboard import storyboard
from janus_jax.rewards import settings, shapes
from janus_jax.rewards.own_model import SelfJudge
from janus_jax.rl import credit as credits
from janus_jax.rl import ppo, rollouts, sight
from janus_jax.rl.monitor import labelled_pictures, listed_pictures, retention
from janus_jax.rl.objective import PPO, check_rows, make_programs, sampling_of
from janus_jax.rl.rollouts import timed
from janus_jax.rl.scored import Stage, credit, score, training_batches
from janus_jax.training.metrics import Metrics
from janus_jax.training.step import MOST_SKIPPED, check_skipped, in_a_row
from janus_jax.training.workdir import Checkpoints, same_settings

# What a training may be resumed with otherwise: how long, how often, where, and whom it asks how.
MAY_CHANGE = (
    *("steps", "save_every", "storyboard_every", "max_logp_gap", "most_missing", "pause_seconds"),
    *("mesh", "micro_batches", "rollout_rows"),
    *(f"reward.{name}" for name in ("url", "timeout_s", "retries", "concurrency", "api_key_env")),
)


def main(argv):
    config, workdir = cli.parse_config(argv, __doc__)
    hosts.start(config)
    cli.config_at_least(
        1, config, "prompts_per_step", "updates", "micro_batches", "steps", "save_every", "storyboard_every", "rounds"
    )
    cli.config_at_least(1, config, "retention_prompts")
    cli.config_at_least(0, config, "seed", "retention_every", "redraws", "refresh_every")
    if config.credit not in credits.CREDITS:
        raise UserError(f"credit {config.credit!r} is none of {', '.join(credits.CREDITS)}: set --config.credit")
    if config.credit.startswith("released/") and config.rounds != 2:
        raise UserError("released credit is about two rounds: set --config.rounds=2, or --config.credit=trajectory")
    if config.released and not config.credit.startswith("released/"):
        raise UserError("the released layout goes with released credit: set --config.credit=released/own_prompt")
    if config.estimator not in (*credits.ESTIMATORS, PPO):
        raise UserError(
            f"estimator {config.estimator!r} is none of {', '.join((*credits.ESTIMATORS, PPO))}: set --config.estimator"
        )
    if config.estimator == PPO and (config.credit != "trajectory" or config.redraws):
        raise UserError("ppo credits every token by itself: set --config.credit=trajectory and --config.redraws=0")
    if config.ahead and config.released:
        raise UserError(
            "the released layout knows no old probabilities, which a rollout that is drawn ahead needs: set "
            "--config.ahead=False or --config.released=False"
        )
    if config.warmup > config.turn_step or not config.turn_learning_rate > 0:
        raise UserError(
            "the learning rate rises for config.warmup steps and is config.turn_learning_rate, above 0, at "
            "config.turn_step: set --config.turn_step to --config.warmup at least"
        )
    if config.ahead and config.redraws:
        raise UserError("a rollout that is drawn ahead cannot know which groups to replace: set --config.redraws=0")
    if jax.process_count() > 1 and config.released:
        raise UserError("rows of the released layout depend on those beside them: start one process")
    if not 2 <= config.min_group <= config.group:
        raise UserError(
            "group-relative advantages need groups of at least 2: set --config.group and, between 2 and that, "
            "--config.min_group"
        )
    mesh = sharding.mesh_of(config.mesh)
    check_rows(config, mesh)
    # what is wrong with the reward or the prompts is said before a model is loaded
    settings.make_judge(config.reward, own=shapes.judge)
    if config.ahead and settings.on_devices(config.reward):
        raise UserError("the model as judge knows only what was drawn last: set --config.ahead=False")
    # all processes of a pod compute with these together
    lines = hosts.read_alike("config.prompts", lambda: read_prompts(config.prompts)) if config.prompts else None
    own = config.retention_every and config.retention_pairs
    labelled = None
    if own:
        labelled = hosts.read_alike(
            "config.retention_pairs",
            lambda: listed_pictures(config.retention_pairs),
            lambda found: b"".join(
                (repr(found.prompts).encode(), found.right.tobytes(), *(image.tobytes() for image in found.images))
            ),
        )
    try:
        precision = jax.default_matmul_precision(config.matmul_precision or None)
    except ValueError as error:
        raise UserError(f"{error}: set --config.matmul_precision") from error
    with jax.set_mesh(mesh), precision:
        train(config, Path(workdir), mesh, lines, labelled)


def assemble(config, mesh, lines):
    """(Stage, the parameters that stage 2 starts from), for the mesh in the context. lines: the prompts of a file, or
    None."""
    model, params, processor = loading.load(config.init, mesh=mesh)
    model = Janus(model.cfg.changed(config.model))
    special = processor.special
    programs = make_programs(config, model, (special.yes, special.no), params, mesh)
    layout = credits.layout(
        config.credit, model, processor, config.prompt_tokens, config.rounds, config.max_reason_tokens
    )
    if lines is not None:
        rollouts.check_prompts(config, lines, processor)
    return Stage(model, processor, sampling_of(config), lines, layout, programs), params


def learn(config, stage: Stage, state, batches):
    """`config.updates` steps on one batch: (state, metrics of the last, but max_logp_gap and lost of the first, before
    which nothing was learnt; skipped: the share that was)."""
    begun, skipped = None, 0.0
    for _ in range(config.updates):
        state, values = stage.programs.built.step(state, batches)
        skipped += values["skipped"]
        begun = begun or {name: values[name] for name in ("max_logp_gap", "lost")}
    values = {name: float(value) for name, value in jax.device_get({**values, **begun}).items()}
    values["skipped"] = float(skipped) / config.updates  # exactly 1 where all were
    if config.released:  # no old probability to differ from
        values["max_logp_gap"] = float("nan")
    for name in ("codes", "text"):  # in nats per token, whatever the modality's share of the weights
        values[f"entropy_{name}"] /= max(values.pop(f"share_{name}"), 1e-9)
    return state, values


@jax.jit
def copied(params):
    """The model's parameters in buffers of their own: those of the state are given away from step to step."""
    return jax.tree.map(jnp.copy, ppo.without_value_head(params))


def in_checkpoint(config, stage: Stage, state, reference, flight) -> dict:
    """What a checkpoint holds beside the state, if there is any: the reference, where it changes, and the rollout in
    flight."""
    items = {"state": state}
    if config.refresh_every:
        items["reference"] = reference
    if flight is not None:
        items["rollout"] = rollouts.to_arrays(config, stage, flight)
    return items


def resumed(config, stage: Stage, checkpoints, step: int, reference):
    """(state, reference, rollout in flight or None) of a checkpoint."""
    wanted = {"state": stage.programs.built.abstract}
    if config.refresh_every:
        wanted["reference"] = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), reference
        )
    if config.ahead and checkpoints.holds(step, "rollout"):
        wanted["rollout"] = rollouts.abstract_arrays(config, stage)
    found = checkpoints.restore(step, wanted)
    flight = rollouts.from_arrays(config, stage, step, found["rollout"]) if "rollout" in found else None
    return found["state"], found.get("reference", reference), flight


def train(config, workdir, mesh, lines, labelled):
    """Runs stage 2 on a mesh in the context. lines, labelled: the prompts and labelled pictures of files, or None."""
    stage, initial = assemble(config, mesh, lines)
    own = SelfJudge(stage.model, initial, stage.processor, batch=config.prompts_per_step * config.group)
    judge = settings.make_judge(config.reward, own=own)
    if settings.on_devices(config.reward):
        stage = dataclasses.replace(stage, look=own.look)
    if config.retention_every and labelled is None:
        labelled = labelled_pictures(stage.model, stage.programs.to_draw(initial), config.retention_prompts)
    stop = cli.Stop()
    stopped = hosts.AnyOf(stop)
    with Checkpoints(workdir, "rl") as checkpoints, Metrics(workdir, "rl", hosts.is_first()) as metrics:
        same_settings(workdir, config, MAY_CHANGE)
        checkpoints.discard_unsealed()
        first = checkpoints.latest()
        if first is None:
            begun = ppo.with_value_head(initial, stage.model.cfg.llama.width) if config.estimator == PPO else initial
            state, reference, flight = stage.programs.built.initial(begun), initial, None
        else:
            state, reference, flight = resumed(config, stage, checkpoints, first, initial)
        done = saved = first or 0
        skipped = 0
        ahead = rollouts.Ahead(config, stage, judge, flight) if config.ahead else None
        collect = ahead.collect if ahead else functools.partial(rollouts.collect, config, stage, judge)

        def save():
            nonlocal saved
            if done > saved:
                checkpoints.save(done, in_checkpoint(config, stage, state, reference, ahead and ahead.in_flight))
                saved = done

        def wait(line):  # rewards are missing: nothing is lost, however long that lasts
            save()
            checkpoints.wait()
            if line:  # else another process of the pod has one
                tqdm.write(line, file=sys.stderr)

        with cli.progress(done, config.steps, "rl", hosts.is_first()) as bar:
            while done < config.steps and skipped < MOST_SKIPPED and not stopped:
                seconds = collections.Counter()
                found = collect(state.params, reference, done, lambda: bool(stop), wait, seconds)
                if found is None:
                    break
                with timed(seconds, "score"):
                    scores = found.scores or score(config, stage, found.trajectories, state.params, reference)
                    taught = (found.trajectories, found.rewards)
                    batches = training_batches(config, stage, *taught, scores, state.params)
                    jax.block_until_ready(batches)
                with timed(seconds, "train"):
                    state, values = learn(config, stage, state, batches)
                done += 1
                skipped = in_a_row(skipped, values)
                if config.refresh_every and done % config.refresh_every == 0:
                    reference = copied(state.params)
                checkpoints.poll()
                values |= described(config, found, seconds)
                if labelled and (done % config.retention_every == 0 or done == config.steps):
                    values["retention"] = retention(
                        stage.model, stage.programs.to_draw(state.params), stage.processor, labelled
                    )
                written = metrics.write(done, values)
                bar.update()
                bar.set_postfix(first=f"{written['right_first']:.2f}", final=f"{written['right_final']:.2f}")
                if (values["max_logp_gap"] or 0) > config.max_logp_gap:
                    save()
                    raise UserError(
                        f"sampler and trainer differ by {values['max_logp_gap']:.3g} in a log-probability (limit "
                        f"{config.max_logp_gap}): the density trained is not the one sampled"
                    )
                if hosts.is_first() and (done % config.storyboard_every == 0 or done == config.steps):
                    board = storyboard(sight.telling(*found.drawn), title=f"step {done}")
                    board.save(workdir / f"storyboard_{done:05d}.png")
                    metrics.image(done, "storyboard", np.asarray(board))
                    write_report(workdir)
                if done % config.save_every == 0:
                    save()
        save()
    check_skipped(skipped)
    if done >= config.steps:
        drawn_with = {"cfg_weight": config.cfg_weight, "temperature": config.temperature}
        trained = ppo.without_value_head(state.params)
        loading.save(workdir / "model", stage.model, trained, stage.processor, drawn_with=drawn_with)


def described(config, found: rollouts.Experience, seconds) -> dict:
    """Scalars of a step's experience. Of all that was drawn: groups that were chosen for their spread would tell
    another story."""
    trajectories, rewards = found.drawn
    segments = credits.segment_rewards(config.credit, trajectories, rewards, config.rounds)
    values = sight.describe(trajectories, rewards, segments, credit(config, trajectories, rewards), config.group)
    values |= {f"seconds_{phase}": spent for phase, spent in seconds.items()}
    values["tokens_per_second"] = sight.sampled_tokens(trajectories) / seconds.total()
    values["groups_drawn"] = len(trajectories) // config.group
    if found.scores is not None:  # drawn by earlier parameters: the trainer's own figure is of today's
        values["max_logp_gap"] = found.scores.gap
    return values


if __name__ == "__main__":
    cli.run(main, hosts.leave)

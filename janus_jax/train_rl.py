"""Stage 2, reinforcement learning: python -m janus_jax.train_rl --config configs/shapes_rl.py --workdir DIR

What differs from the paper and from the released code, by default: the density trained is the one sampled (guidance and
temperature included, the verdict over {Yes, No}), end-of-reason tokens are trained, embeddings carry gradients, the
reference scores with its own embeddings, pictures are drawn again only where the model says No.
--config.released=True does all of this as the released code does, for comparison. Each step: draw a group
of trajectories per prompt, judge the pictures, turn rewards into advantages (`credit`), and take `updates` clipped
policy-gradient steps through the very `make_train_step` of stage 1. Resumes from the workdir by itself: the prompts
and the random bits of a step are functions of (seed, step). The finished model is DIR/model.
"""

import collections
import contextlib
import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from janus_jax import cli, loading, losses, optim, ppo, rollout, self_judge, sharding, sight, tokens, train_step
from janus_jax.appraisal import appraise
from janus_jax.batch import targets_of, with_targets
from janus_jax.checkpoint import Checkpoints
from janus_jax.density import Sampling
from janus_jax.errors import UserError
from janus_jax.introspect import introspect
from janus_jax.metrics import Metrics
from janus_jax.models.janus import Janus
from janus_jax.models.logps import token_logps
from janus_jax.processor import Processor
from janus_jax.report import write as write_report
from janus_jax.retention import labelled_pictures, retention
from janus_jax.rewards import settings, shapes
from janus_jax.shapes import text
from janus_jax.storyboard import storyboard

PPO = "ppo"  # the estimator that is none of rollout.ESTIMATORS: it credits tokens, not trajectories


def make_forward(model, sampling: Sampling, yes_no, released: bool = False):
    """forward(params, batches, policy=params) -> list of token_logps under the sampling density; released: as the
    released code does it, where `policy` embeds the contexts."""

    def forward(params, batches, policy=None):
        policy = (params if policy is None else policy) if released else None
        return [token_logps(model, params, batch, sampling, yes_no, policy) for batch in batches]

    return forward


def make_prepare(per: str):
    """prepare(batches): weights normalised over all roles, see losses.pg_weights."""

    def prepare(batches):
        targets = [(t.weight, t.group) for *_, t in targets_of(batches)]
        return with_targets(batches, weight=losses.pg_weights(targets, rollout.SEGMENTS, per))

    return prepare


def make_loss(beta: float, clip_low: float, clip_high: float, value_weight: float = 0.0):
    """loss(outputs, batches) -> (f32[], metrics) over all roles. value_weight: of the value head's loss, if there is
    one."""

    def loss(outputs, batches):
        total, metrics = 0.0, {}
        for name, i, targets in targets_of(batches):
            logps, old = outputs[i][name], targets.old_logps
            # the released layout knows no old probabilities: always on policy
            old = jnp.where(jnp.isnan(old), jax.lax.stop_gradient(logps), old)
            value, parts = losses.pg_loss(
                logps,
                old,
                targets.ref_logps,
                targets.advantage,
                targets.weight,
                beta=beta,
                clip_low=clip_low,
                clip_high=clip_high,
            )
            total += value
            if targets.returns is not None:
                parts["value_loss"] = losses.value_loss(outputs[i][f"{name}_value"], targets.returns, targets.weight)
                total += value_weight * parts["value_loss"]
            parts[f"entropy_{name}"] = jnp.sum(outputs[i][f"{name}_entropy"] * targets.weight)
            parts[f"share_{name}"] = jnp.sum(targets.weight)
            metrics |= {key: metrics.get(key, 0.0) + part for key, part in parts.items()}
            gap = jnp.max(jnp.where(targets.weight > 0, jnp.abs(logps - old), 0.0))
            metrics["max_logp_gap"] = jnp.maximum(metrics.get("max_logp_gap", 0.0), gap)
        return total, metrics

    return loss


def main(argv):
    config, workdir = cli.parse_config(argv, __doc__)
    cli.config_at_least(
        1, config, "prompts_per_step", "updates", "micro_batches", "steps", "save_every", "storyboard_every", "rounds"
    )
    cli.config_at_least(1, config, "retention_prompts")
    cli.config_at_least(0, config, "seed", "retention_every", "redraws")
    if config.credit not in rollout.CREDITS:
        raise UserError(f"credit {config.credit!r} is none of {', '.join(rollout.CREDITS)}: set --config.credit")
    if config.credit.startswith("released/") and config.rounds != 2:
        raise UserError("released credit is about two rounds: set --config.rounds=2, or --config.credit=trajectory")
    if config.released and not config.credit.startswith("released/"):
        raise UserError("the released layout goes with released credit: set --config.credit=released/own_prompt")
    if config.estimator not in (*rollout.ESTIMATORS, PPO):
        raise UserError(
            f"estimator {config.estimator!r} is none of {', '.join((*rollout.ESTIMATORS, PPO))}: set --config.estimator"
        )
    if config.estimator == PPO and (config.credit != "trajectory" or config.redraws):
        raise UserError("ppo credits every token by itself: set --config.credit=trajectory and --config.redraws=0")
    if not 2 <= config.min_group <= config.group:
        raise UserError(
            "group-relative advantages need groups of at least 2: set --config.group and, between 2 and that, "
            "--config.min_group"
        )
    mesh = sharding.mesh_of(config.mesh)
    rows = config.prompts_per_step * config.group
    if rows % (mesh.shape["data"] * mesh.shape["fsdp"] * config.micro_batches):
        raise UserError(
            f"{rows} trajectories per step do not divide by mesh x micro_batches: change "
            "--config.prompts_per_step or --config.micro_batches"
        )
    # what is wrong with the reward is said before a model is loaded
    settings.make_judge(config.reward, own=shapes.judge)
    try:
        precision = jax.default_matmul_precision(config.matmul_precision or None)
    except ValueError as error:
        raise UserError(f"{error}: set --config.matmul_precision") from error
    with jax.set_mesh(mesh), precision:
        train(config, Path(workdir), mesh)


@dataclasses.dataclass(frozen=True)
class Stage:
    """What stays the same from step to step: the model, its sampling, its frozen reference and the parameters that
    training starts from; the jitted step with its state's form, and a batch's log-probabilities and values by any
    parameters, jitted; shapes and places of the batches; where parameters lie while they draw: not split over fsdp,
    since each token would gather them anew."""

    model: Janus
    processor: Processor
    sampling: Sampling
    reference: dict
    initial: dict
    built: train_step.Built
    score: Callable
    expect: Callable
    layout: rollout.Layout
    by_row: jax.sharding.NamedSharding
    drawing: dict


def assemble(config, mesh) -> Stage:
    """Loads the model that stage 2 starts from and builds its programs, for the mesh in the context."""
    model, reference, processor = loading.load(config.init, mesh=mesh)
    model = Janus(model.cfg.changed(config.model))
    special = processor.special
    sampling = Sampling(
        cfg_weight=config.cfg_weight,
        temperature=config.temperature,
        image_top_k=config.image_top_k or None,
        text_top_k=config.text_top_k or None,
        max_reason_tokens=config.max_reason_tokens,
    )
    initial = ppo.with_value_head(reference, model.cfg.llama.width) if config.estimator == PPO else reference
    trainable = train_step.trainable_leaves(initial, config.frozen)
    schedule = optim.warmup_linear_then(
        config.schedule,
        config.learning_rate,
        config.turn_learning_rate,
        config.final_learning_rate,
        config.warmup,
        config.turn_step,
        config.steps * config.updates,
    )
    decays = sharding.match(optim.DECAY_RULES, train_step.split(initial, trainable)[0])
    tx = optim.adamw(schedule, weight_decay=config.weight_decay, decay_mask=decays, clip=config.clip_norm)
    by_row = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(("data", "fsdp")))
    forward = make_forward(model, sampling, (special.yes, special.no), config.released)
    # Dr.GRPO is also a mean over tokens, whatever their trajectory; so is PPO
    per = "token" if config.estimator in ("dr_grpo", PPO) else rollout.PER[config.credit.split("/")[0]]
    built = train_step.build(
        forward,
        make_loss(config.beta, config.clip_low, config.clip_high, config.value_weight),
        tx,
        initial,
        trainable,
        mesh,
        by_row,
        rules=(*ppo.RULES, *sharding.PARAM_RULES) if config.estimator == PPO else sharding.PARAM_RULES,
        prepare=make_prepare(per),
        micro_batches=config.micro_batches,
    )

    def score(params, batches, policy):
        outputs = forward(params, batches, policy)
        return [outputs[i][name] for name, i, _ in targets_of(batches)]

    def expect(params, batches):
        outputs = forward(params, batches)
        return [outputs[i][f"{name}_value"] for name, i, _ in targets_of(batches)]

    layout = rollout.layout(
        config.credit, model, processor, config.prompt_tokens, config.rounds, config.max_reason_tokens
    )
    drawing = sharding.param_shardings(reference, mesh, without=("fsdp",))
    # their results join the batch, whose place the step states
    programs = (built, jax.jit(score, out_shardings=by_row), jax.jit(expect, out_shardings=by_row))
    return Stage(model, processor, sampling, reference, initial, *programs, layout, by_row, drawing)


def explore(config, stage: Stage, params, number: int, attempt: int = 0):
    """Trajectories of step `number`: a group for each of its prompts, which depend on (config.seed, number, attempt)
    alone."""
    rng = np.random.default_rng([config.seed, number, attempt] if attempt else [config.seed, number])
    free = rng.random(config.prompts_per_step) < config.free_prompts
    prompts = [_short_prompt(config, stage.processor, rng, freely) for freely in free]
    return introspect(
        stage.model,
        jax.device_put(ppo.without_value_head(params), stage.drawing),
        stage.processor,
        prompts,
        config.group,
        config.rounds,
        stage.sampling,
        seed=int(rng.integers(2**31)),
        batch=len(prompts) * config.group,
        always=config.credit == "released/always_second",
        released=config.released,
    )


def _short_prompt(config, processor, rng, freely):
    """A training prompt of at most config.prompt_tokens; longer ones are left out. Raises UserError where all are
    longer."""
    for _ in range(100):
        prompt = text.free_prompt(rng) if freely else text.train_prompt(rng)
        length = len(tokens.prompt_ids(processor.tokenizer, prompt))
        if length <= config.prompt_tokens:
            return prompt
    raise UserError(
        f"prompts have more than {config.prompt_tokens} tokens: set --config.prompt_tokens={length} or more"
    )


def credit(config, trajectories, rewards) -> rollout.Credited:
    """rollout.credit as the configuration says. Of PPO it is what groups would say; see token_advantages."""
    estimator = rollout.ESTIMATORS["grpo" if config.estimator == PPO else config.estimator]
    minimum = 1 if config.estimator == PPO else config.min_group
    settings = (config.group, config.rounds, estimator, minimum)
    return rollout.credit(config.credit, trajectories, rewards, *settings)


def collect(config, stage: Stage, judge, params, number: int, stop, tell, seconds):
    """((trajectories, their rewards) to learn from, the same of all that was drawn) of step `number`, or None where
    stop() became true while rewards were missing.

    Groups that teach nothing, because their members fare alike, are replaced by those of up to config.redraws further
    rollouts (the dynamic sampling of DAPO, arXiv 2503.14476); what is not found stays. tell: see appraise; seconds: a
    Counter of the time spent per phase.
    """
    telling, idle, everything = [], [], ([], [])
    for attempt in range(1 + config.redraws):
        with timed(seconds, "draw"):
            trajectories = explore(config, stage, params, number, attempt)
        with timed(seconds, "judge"):
            rewards = appraise(judge, trajectories, config.most_missing, config.pause_seconds, stop, tell)
        if rewards is None:
            return None
        everything[0].extend(trajectories)
        everything[1].extend(rewards)
        credited = credit(config, trajectories, rewards)
        for begin in range(0, len(trajectories), config.group):
            members = slice(begin, begin + config.group)
            idles = all(sight.idle(advantage[members], config.group) for advantage in credited)
            (idle if idles else telling).append((trajectories[members], rewards[members]))
        if len(telling) >= config.prompts_per_step:
            break
    groups = (telling + idle)[: config.prompts_per_step]
    return tuple([one for group in groups for one in group[i]] for i in range(2)), everything


@contextlib.contextmanager
def timed(seconds, phase: str):
    """Adds the block's duration to seconds[phase]."""
    began = time.time()
    yield
    seconds[phase] += time.time() - began


def make_batches(config, stage: Stage, trajectories, credited: rollout.Credited, policy):
    """The batches of credited trajectories on the mesh, (painter's, judge's) or those of rollout.released_batches, with
    the reference's log-probabilities. policy: the parameters that drew them."""
    make = rollout.released_batches if config.released else rollout.pg_batch
    batches = make(
        config.credit,
        trajectories,
        credited,
        stage.processor,
        stage.layout,
        stage.model.cfg.siglip.tokens,
        guided=stage.sampling.cfg_weight != 1.0,
    )
    batches = jax.tree.map(lambda x: jax.make_array_from_process_local_data(stage.by_row, x), batches)
    old = [targets.old_logps for *_, targets in targets_of(batches)]
    if config.credit == "released/regen_prompt" and not config.released:
        # a picture's copy was never sampled in its second context: what the policy gave it there before any update
        old = [
            jax.device_put(jnp.where(jnp.isnan(mine), now, mine), stage.by_row)
            for mine, now in zip(old, stage.score(policy, batches, None), strict=True)
        ]
    return with_targets(batches, old_logps=old, ref_logps=stage.score(stage.reference, batches, policy))


def token_advantages(config, stage: Stage, batches, trajectories, rewards, policy):
    """The batches with PPO's advantages and returns in place of the groups'."""
    values = jax.device_get(stage.expect(policy, batches))
    advantages, returns = ppo.advantages(trajectories, rewards, config.rounds, values, config.gamma, config.gae_lambda)
    known = [np.nan_to_num(advantage) for advantage in advantages]
    fields = {"advantage": known, "returns": list(returns)}
    placed = {
        name: [jax.make_array_from_process_local_data(stage.by_row, x) for x in arrays]
        for name, arrays in fields.items()
    }
    return with_targets(batches, **placed)


def learn(config, stage: Stage, state, batches):
    """`config.updates` steps on one batch: (state, metrics of the last, but max_logp_gap of the first, before which
    nothing was learnt)."""
    gap = None
    for _ in range(config.updates):
        state, values = stage.built.step(state, batches)
        gap = values["max_logp_gap"] if gap is None else gap
    values = {name: float(value) for name, value in jax.device_get({**values, "max_logp_gap": gap}).items()}
    for name in ("codes", "text"):  # in nats per token, whatever the modality's share of the weights
        values[f"entropy_{name}"] /= max(values.pop(f"share_{name}"), 1e-9)
    return state, values


def train(config, workdir, mesh):
    """Runs stage 2 on a mesh in the context."""
    stage = assemble(config, mesh)
    rows = config.prompts_per_step * config.group
    own = self_judge.make_judge(stage.model, stage.reference, stage.processor, batch=rows)
    judge = settings.make_judge(config.reward, own=own)
    labelled = (
        labelled_pictures(stage.model, stage.reference, config.retention_prompts) if config.retention_every else None
    )
    stop = cli.Stop()
    with Checkpoints(workdir, "rl") as checkpoints, Metrics(workdir, "rl") as metrics:
        checkpoints.discard_unsealed()
        first = checkpoints.latest()
        if first is None:
            state = stage.built.initial(stage.initial)
        else:
            state = checkpoints.restore(first, {"state": stage.built.abstract})["state"]
        done = saved = first or 0

        def save():
            nonlocal saved
            if done > saved:
                checkpoints.save(done, {"state": state})
                saved = done

        def wait(line):  # rewards are missing: nothing is lost, however long that lasts
            save()
            checkpoints.wait()
            tqdm.write(line, file=sys.stderr)

        with cli.progress(done, config.steps, "rl") as bar:
            while done < config.steps and not stop:
                seconds = collections.Counter()
                rewarded = collect(config, stage, judge, state.params, done, lambda: bool(stop), wait, seconds)
                if rewarded is None:
                    break
                (trajectories, rewards), drawn = rewarded
                credited = credit(config, trajectories, rewards)
                with timed(seconds, "score"):
                    batches = make_batches(config, stage, trajectories, credited, state.params)
                    if config.estimator == PPO:
                        batches = token_advantages(config, stage, batches, trajectories, rewards, state.params)
                    jax.block_until_ready(batches)
                with timed(seconds, "train"):
                    state, values = learn(config, stage, state, batches)
                done += 1
                checkpoints.poll()
                # of all that was drawn: groups that were chosen for their spread would tell another story
                values |= sight.describe(*drawn, credit(config, *drawn), config.group)
                values |= {f"seconds_{phase}": spent for phase, spent in seconds.items()}
                values["tokens_per_second"] = sight.sampled_tokens(drawn[0]) / seconds.total()
                values["groups_drawn"] = len(drawn[0]) // config.group
                if labelled and (done % config.retention_every == 0 or done == config.steps):
                    values["retention"] = retention(stage.model, state.params, stage.processor, labelled)
                written = metrics.write(done, values)
                bar.update()
                bar.set_postfix(first=f"{written['right_first']:.2f}", final=f"{written['right_final']:.2f}")
                if not written["max_logp_gap"] <= config.max_logp_gap:
                    raise UserError(
                        f"sampler and trainer differ by {written['max_logp_gap']:.3g} in a log-probability (limit "
                        f"{config.max_logp_gap}): the density trained is not the one sampled"
                    )
                if done % config.storyboard_every == 0 or done == config.steps:
                    board = storyboard(sight.telling(*drawn), title=f"step {done}")
                    board.save(workdir / f"storyboard_{done:05d}.png")
                    metrics.image(done, "storyboard", np.asarray(board))
                    write_report(workdir)
                if done % config.save_every == 0:
                    save()
        save()
    if done >= config.steps:
        drawn_with = {"cfg_weight": config.cfg_weight, "temperature": config.temperature}
        trained = ppo.without_value_head(state.params)
        loading.save(workdir / "model", stage.model, trained, stage.processor, drawn_with=drawn_with)


if __name__ == "__main__":
    cli.run(main)

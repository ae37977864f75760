"""One training step for every stage: `make_train_step(forward, loss, tx)` over one `TrainState`.

The stages differ in `loss(outputs, batch)` alone. Losses are sums whose weights were normalised over the whole batch
beforehand (see losses.py), so that gradient accumulation is exact for any distribution of masked tokens over the
micro-batches: the gradient of a sum is the sum of the gradients.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax
import jax
import jax.numpy as jnp
import optax

from janus_jax.errors import UserError
from janus_jax.parallel import sharding


@flax.struct.dataclass
class TrainState:
    """Arrays only: the step i32[], the one parameter pytree, and the optimizer's state for its trainable leaves."""

    step: jax.Array
    params: dict
    opt_state: optax.OptState


def split(params, trainable):
    """Parts a tree by a tree of bools into two of the same form, each with None where the other has a leaf."""
    kept = jax.tree.map(lambda leaf, keep: leaf if keep else None, params, trainable)
    frozen = jax.tree.map(lambda leaf, keep: None if keep else leaf, params, trainable)
    return kept, frozen


def trainable_leaves(params, frozen):
    """A tree of bools: False where a regex of `frozen` matches the whole path. Raises UserError for one that matches
    none."""
    try:
        return sharding.match([*((regex, False) for regex in frozen), (r".*", True)], params)
    except ValueError as error:
        raise UserError(f"{error}: set --config.frozen") from error


def merge(first, second):
    """Undoes `split`."""
    return jax.tree.map(lambda a, b: b if a is None else a, first, second, is_leaf=lambda leaf: leaf is None)


def init_state(params, tx, trainable) -> TrainState:
    """A fresh state; the optimizer only knows the trainable leaves, so frozen towers cost it no memory."""
    return TrainState(jnp.zeros((), jnp.int32), params, tx.init(split(params, trainable)[0]))


def abstract_state(initial: Callable, mesh, rules=sharding.PARAM_RULES, params=()) -> TrainState:
    """The state that `initial(*params)` would make, as ShapeDtypeStructs with shardings: parameters by `rules` (see
    sharding.py), optimizer moments (leaves whose path ends in a parameter's and that have its shape) like their
    parameters, everything else replicated."""
    abstract = jax.eval_shape(initial, *params)
    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    of_params = sharding.param_shardings(abstract.params, mesh, rules)
    by_path = {
        path: (leaf.shape, place)
        for (path, leaf), (_, place) in zip(sharding.paths(abstract.params), sharding.paths(of_params), strict=True)
    }

    def of_moment(path, leaf):
        names = path.split("/")
        for first in range(len(names)):
            shape, place = by_path.get("/".join(names[first:]), (None, None))
            if shape == leaf.shape:
                return place
        return replicated

    moments = [of_moment(path, leaf) for path, leaf in sharding.paths(abstract.opt_state)]
    of_moments = jax.tree.unflatten(jax.tree.structure(abstract.opt_state), moments)
    places = TrainState(replicated, of_params, of_moments)
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), abstract, places
    )


def cut(batch, count: int):
    """A batch's arrays [B,...] as [count, B/count,...]: row r in piece r mod count, so that a mesh over which the rows
    are split in order need not move any."""
    return jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1), batch)


def uncut(pieces):
    """Undoes `cut`."""
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), pieces)


def make_train_step(
    forward: Callable,
    loss: Callable,
    tx: optax.GradientTransformation,
    trainable,
    *,
    prepare: Callable = lambda batch: batch,
    parts: Callable = lambda batch: [batch],
    computed: Callable = lambda params: params,
    micro_batches: int = 1,
    state_shardings=None,
    batch_shardings=None,
):
    """Builds the jitted step `(state, batch) -> (state, metrics)`; the state's buffers are donated.

    forward(params, batch) -> outputs; loss(outputs, batch) -> (f32[] sum, {name: f32[]}), where metrics are sums too,
    but for those called max_*, which are non-negative maxima.
    prepare(batch) sees the whole batch and may rewrite it (normalised weights, say).
    parts(batch) -> what the prepared batch consists of, whose losses add up to its own: their gradients are taken one
    after the other and summed, so that only one's activations and gradient are held at a time.
    computed(params) -> the trainable parameters as they are computed with, once per step (cast, say): the gradient is
    taken with respect to these, and summed over parts and micro-batches, in their dtypes.
    trainable: a tree of bools like params; the rest gets no gradient, is not updated and is bit for bit unchanged.
    micro_batches: each part's leading axis is cut into that many, whose gradients are summed.
    state_shardings, batch_shardings: NamedShardings for the mesh in use, a tree like TrainState and a prefix of the
    batch; metrics come back replicated. Without them everything stays where it is (one device).
    Metrics: the loss's own, "loss", "grad_norm", "update_norm", and "skipped" (1 where the step kept its state,
    because loss, gradient or update were not finite, or the update larger than the parameters).
    """

    def objective(kept, frozen, batch):
        value, metrics = loss(forward(merge(kept, jax.lax.stop_gradient(frozen)), batch), batch)
        return value, {"loss": value, **metrics}

    def step(state: TrainState, batch):
        batch = prepare(batch)
        kept, frozen = split(state.params, trainable)
        used = computed(kept)

        total = _summed(lambda part: jax.grad(objective, has_aux=True)(used, frozen, part), parts(batch), micro_batches)
        grads, metrics = jax.tree.map(lambda grad, x: grad.astype(x.dtype), total[0], kept), total[1]
        with jax.named_scope("optimizer"):
            norm = optax.tree.norm(grads)
            updates, opt_state = tx.update(grads, state.opt_state, kept)
            fresh, moved = optax.apply_updates(kept, updates), optax.tree.norm(updates)
        # An update larger than all parameters together leaves nothing of them. (1000: where there is little to lose.)
        bound = jnp.maximum(optax.tree.norm(kept), 1000.0)
        sound = jnp.isfinite(norm) & jnp.isfinite(metrics["loss"]) & (moved <= bound)
        # What is not sound leaves everything but the step as it was.
        fresh, opt_state = jax.tree.map(
            lambda new, old: jnp.where(sound, new, old), (fresh, opt_state), (kept, state.opt_state)
        )
        metrics |= {"grad_norm": norm, "update_norm": moved, "skipped": 1.0 - sound.astype(jnp.float32)}
        return TrainState(state.step + 1, merge(fresh, frozen), opt_state), metrics

    shardings = {}
    if state_shardings is not None:
        replicated = jax.sharding.NamedSharding(jax.tree.leaves(state_shardings)[0].mesh, jax.sharding.PartitionSpec())
        shardings = {"in_shardings": (state_shardings, batch_shardings), "out_shardings": (state_shardings, replicated)}
    return jax.jit(step, donate_argnums=0, **shardings)


def _summed(gradient: Callable, parts, micro_batches: int):
    """(gradients, metrics) summed over the parts of a batch, each cut into micro-batches: gradient(part) gives both."""

    def add(total, part):
        grads, metrics = gradient(part)
        if total is None:
            return grads, metrics
        return jax.tree.map(jnp.add, total[0], grads), _joined(total[1], metrics)

    total = None
    for part in parts:
        # Without this the compiler holds the gradients of all parts until it has the last.
        total, part = jax.lax.optimization_barrier((total, part))
        if micro_batches == 1:
            total = add(total, part)
            continue
        pieces = cut(part, micro_batches)
        shapes = jax.eval_shape(add, total, jax.tree.map(lambda x: x[0], pieces))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        start = zeros if total is None else (total[0], zeros[1] | total[1])
        total, _ = jax.lax.scan(lambda total, piece: (add(total, piece), None), start, pieces)
    return total


def _joined(first, second):
    """The metrics of two parts of a batch as those of both."""
    return first | {
        name: (jnp.maximum if name.startswith("max_") else jnp.add)(first[name], x) if name in first else x
        for name, x in second.items()
    }


MOST_SKIPPED = 10  # updates in a row


def in_a_row(before: int, values) -> int:
    """How many steps in a row were skipped, all updates of each, up to the one whose metrics are `values`."""
    return before + 1 if float(values["skipped"]) >= 1 else 0


def check_skipped(count: int, most: int = MOST_SKIPPED) -> None:
    """Raises UserError where too many were: what keeps failing will go on failing. A skipped update changes no
    parameter, so what has been saved by then is the state before."""
    if count >= most:
        raise UserError(
            f"{count} updates in a row were not finite, or larger than all parameters; what was learnt before them is "
            "saved: start again with a lower --config.learning_rate, or look at metrics.jsonl for where it began"
        )


class Built(NamedTuple):
    """A stage's programs on a mesh. step: see make_train_step; initial(params) -> the first TrainState, whose buffers
    are its own; abstract: the state's ShapeDtypeStructs with shardings."""

    step: Callable
    initial: Callable
    abstract: TrainState


def build(
    forward: Callable,
    loss: Callable,
    tx: optax.GradientTransformation,
    params,
    trainable,
    mesh: jax.sharding.Mesh,
    batch_shardings,
    *,
    rules=sharding.PARAM_RULES,
    **settings,
) -> Built:
    """The jitted step of both stages and its first state, for parameters like `params` (arrays, or their shapes) on a
    mesh in the context: Built.step(state, batch) -> (state, metrics), which takes over the state's buffers, and
    Built.initial(params) -> state.

    forward(params, batch) -> outputs; loss(outputs, batch) -> (f32[], {name: f32[]}), all of them sums over the batch,
    but metrics called max_*, which are maxima. tx: an optax transform of the trainable leaves. trainable: a tree of
    bools like params, see `trainable_leaves`. batch_shardings: a prefix of the batch's tree. rules: how parameters lie
    on the mesh. settings: those of `make_train_step`: prepare, parts, computed, micro_batches."""

    def initial(params):
        # a copy: the state's buffers are donated from step to step, and the parameters given may live on elsewhere
        return init_state(jax.tree.map(jnp.copy, params), tx, trainable)

    abstract = abstract_state(initial, mesh, rules, (params,))
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    step = make_train_step(
        forward,
        loss,
        tx,
        trainable,
        state_shardings=shardings,
        batch_shardings=batch_shardings,
        **settings,
    )
    return Built(step, jax.jit(initial, out_shardings=shardings), abstract)

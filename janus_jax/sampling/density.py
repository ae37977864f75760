"""The distribution that pictures and words are drawn from, and that stage 2 trains: one definition for both.

logits -> guidance -> temperature -> top-k -> top-p. Truncated tokens have log-probability -inf.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from janus_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How to draw.

    cfg_weight: guidance w in `uncond + w (cond - uncond)`, 1 = none; temperature > 0 scales both modalities;
    image_top_k / text_top_k: keep that many tokens; image_top_p / text_top_p: keep the smallest set with at least that
    mass (the most likely token always stays); None = no truncation. max_reason_tokens: verdict, reason and EOS at most.
    lookahead: codes that a pass may draw, 1 = one at a time; it changes the speed, not the picture.

    A pytree: weight, temperature and masses are its leaves, so that another value needs no other program; what a
    program's shape depends on (the counts) is static. Raises UserError for values out of range.
    """

    cfg_weight: float = 5.0
    temperature: float = 1.0
    image_top_k: int | None = None
    image_top_p: float | None = None
    text_top_k: int | None = None
    text_top_p: float | None = None
    max_reason_tokens: int = 80
    lookahead: int = 1

    def __post_init__(self):
        if not math.isfinite(self.cfg_weight):
            raise UserError(f"cfg_weight must be a number, not {self.cfg_weight}")
        if not 0 < self.temperature < math.inf:
            raise UserError(f"temperature must be positive, not {self.temperature} (for greedy choices use top_k=1)")
        for name in ("image_top_k", "text_top_k"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1, not {value}")
        for name in ("image_top_p", "text_top_p"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise UserError(f"{name} must lie in (0, 1], not {value}")
            if value == 1:
                object.__setattr__(self, name, None)
        for name in ("max_reason_tokens", "lookahead"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")

    @property
    def guided(self) -> bool:
        """Whether pictures are drawn under guidance, which takes an unconditional row beside each; not to be traced."""
        return self.cfg_weight != 1.0

    @property
    def determining(self) -> dict[str, float | int | None]:
        """What pictures and words depend on, by name: all but the lookahead."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "lookahead"}


_LEAVES = ("cfg_weight", "temperature", "image_top_p", "text_top_p")
_STATIC = ("image_top_k", "text_top_k", "max_reason_tokens", "lookahead")


def _flatten(sampling):
    return [getattr(sampling, name) for name in _LEAVES], tuple(getattr(sampling, name) for name in _STATIC)


def _unflatten(static, leaves):
    # past the checks: leaves may be tracers
    sampling = object.__new__(Sampling)
    for name, value in zip(_LEAVES + _STATIC, (*leaves, *static), strict=True):
        object.__setattr__(sampling, name, value)
    return sampling


jax.tree_util.register_pytree_node(Sampling, _flatten, _unflatten)


def guide(cond, uncond, weight: float):
    """Classifier-free guidance on logits (Ho and Salimans 2022, arXiv 2207.12598): uncond + weight (cond - uncond)."""
    return uncond + weight * (cond - uncond)


def truncate(logits, top_k: int | None = None, top_p: float | None = None):
    """f32[..., V] with everything outside the top k, then outside the nucleus (Holtzman et al. 2020, arXiv 1904.09751),
    set to -inf. Ties at the edge are kept."""
    if top_k is not None and top_k < logits.shape[-1]:
        top = jax.lax.top_k(logits, top_k + 1)[0]
        logits = _at_least(logits, top[..., -2:-1], top[..., -1:])
    if top_p is not None:
        ordered = -jnp.sort(-logits, axis=-1)
        probs = jax.nn.softmax(ordered, axis=-1)
        before = jnp.cumsum(probs, axis=-1) - probs
        kept = jnp.sum(before < top_p, axis=-1, keepdims=True, dtype=jnp.int32)
        next_one = jnp.minimum(kept, logits.shape[-1] - 1)
        last, first = (jnp.take_along_axis(ordered, n, axis=-1) for n in (kept - 1, next_one))
        logits = _at_least(logits, last, first)
    return logits


def _at_least(logits, last, first):
    """The logits down to `last`, the least that is kept; `first` f32[..., 1] is the greatest that is not.

    The cut lies between the two and not at `last`: a compiler may compute guided logits once to sort them and once
    more, rounded differently, to compare them, and the token at the edge would be lost. Closer than 1e-5 is a tie.
    """
    slack = jnp.where(jnp.isfinite(first), jnp.maximum((last - first) / 2, 1e-5), 1.0)
    return jnp.where(logits >= last - slack, logits, -jnp.inf)


def code_logits(cond, uncond, sampling: Sampling):
    """Logits f32[..., C] that codes are sampled with; uncond None = no guidance."""
    logits = cond if uncond is None else guide(cond, uncond, sampling.cfg_weight)
    return truncate(logits / sampling.temperature, sampling.image_top_k, sampling.image_top_p)


def code_logps(cond, uncond, sampling: Sampling):
    """Their log-probabilities f32[..., C]."""
    return jax.nn.log_softmax(code_logits(cond, uncond, sampling))


def text_logits(logits, sampling: Sampling, verdict=None, yes_no: tuple[int, int] | None = None):
    """Logits f32[..., V] that words are sampled with.

    verdict bool[...]: where True only the two ids `yes_no` are possible, and truncation acts among them; None =
    nowhere.
    """
    logits = logits / sampling.temperature
    if verdict is not None:
        allowed = jnp.zeros(logits.shape[-1], bool).at[jnp.array(yes_no)].set(True)
        allowed = allowed.reshape((1,) * (logits.ndim - 1) + (-1,)) | ~verdict[..., None]
        logits = jnp.where(allowed, logits, -jnp.inf)
    return truncate(logits, sampling.text_top_k, sampling.text_top_p)


def text_logps(logits, sampling: Sampling, verdict=None, yes_no: tuple[int, int] | None = None):
    """Their log-probabilities f32[..., V]; arguments as of text_logits."""
    return jax.nn.log_softmax(text_logits(logits, sampling, verdict, yes_no))


def choose(keys, places, logps):
    """One token per row, i32[B], from logps f32[B,V], by the row's own key data u32[B,2] and its place i32[B] or i32[]:
    the same whatever stands beside it. By the Gumbel trick, as jax.random.categorical does it."""

    def noise(key, place):
        return jax.random.gumbel(jax.random.fold_in(jax.random.wrap_key_data(key), place), logps.shape[1:], logps.dtype)

    noisy = logps + jax.vmap(noise)(keys, jnp.broadcast_to(places, len(keys)))
    # jnp.argmax in two passes, each of which a CPU does many numbers at a time; and the noise is made once, not in both
    noisy = jax.lax.optimization_barrier(noisy)
    index = jnp.arange(logps.shape[1], dtype=jnp.int32)[None]
    greatest = noisy == jnp.max(noisy, axis=-1, keepdims=True)
    return jnp.min(jnp.where(greatest, index, logps.shape[1] - 1), axis=-1)


def entropy(logps):
    """Entropy in nats of log-probabilities [..., V], -inf allowed: f32[...]."""
    return -jnp.sum(
        jnp.where(jnp.isfinite(logps), jnp.exp(logps) * jnp.where(jnp.isfinite(logps), logps, 0.0), 0.0), -1
    )

"""The PyTorch reference's numbers, and the model on the weights that they were computed with.

`X.idx` are flat indices into the array X, in PyTorch's layout (channels before height and width), `X.val` the values
there.
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from janus_jax.checkpoints import published
from janus_jax.checkpoints.tensor_names import ORIGINAL, gather, read
from janus_jax.models.janus import Janus, abstract_params
from janus_jax.parallel import sharding

GOLDEN = Path(__file__).parent / "golden"
sys.path.insert(0, str(GOLDEN))
import weights as golden_weights  # noqa: E402

CFG = published.read_config(json.loads((GOLDEN / "config.json").read_text()), "original")
SPEC = json.loads((GOLDEN / "spec.json").read_text())
SPREAD = 1e-4  # the largest deviation, of the standard deviation of the array


def from_original(tensors: dict, abstract):
    """The parameter tree, as numpy arrays in the dtypes of `abstract` (from abstract_params), of tensors under their
    original names. Raises UserError as `gather` does."""
    targets = dict(sharding.paths(abstract))
    leaves, _ = gather(tensors, {path: leaf.shape for path, leaf in targets.items()}, ORIGINAL)
    arrays = [read(leaves[path]).astype(targets[path].dtype, copy=False) for path in targets]
    return jax.tree.unflatten(jax.tree.structure(abstract), arrays)


def golden_model():
    """(model, golden parameters, run(method, *args))."""
    janus = Janus(CFG)
    tensors = {name: golden_weights.tensor(name, shape) for name, shape in SPEC.items()}
    params = from_original(tensors, abstract_params(janus))
    params = jax.tree.map(jnp.asarray, params)

    def run(method, *args):
        return jax.jit(lambda p, *a: janus.apply({"params": p}, *a, method=method))(params, *args)

    return janus, params, run


def close(ours, theirs, spread=None):
    """All within SPREAD; spread: the standard deviation that counts, if not that of `theirs`."""
    np.testing.assert_allclose(ours, theirs, atol=SPREAD * (spread or np.std(theirs)), rtol=0)


def sample_close(ours, golden, name, spread=None):
    """Compares an array in PyTorch's layout, of which we may hold the first rows only, with its sample; spread: that of
    the whole array if not given."""
    ours = np.asarray(ours).reshape(-1)
    idx, val = golden[name + ".idx"], golden[name + ".val"]
    held = idx < ours.size
    assert held.sum() > 20
    close(ours[idx[held]], val[held], spread or golden[name + ".stats"][1])

"""Products on a single device are those of two matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from janus_jax.parallel import sharding

FORMS = [
    # equation, shapes, the result's names, whether it is a product of two matrices
    ("BTD,DF->BTF", (2, 3, 4), (4, 5), ("batch", "length", "mlp"), True),
    ("BTD,DNH->BTNH", (2, 3, 4), (4, 2, 3), ("batch", "length", "heads", "head_dim"), True),
    ("BTNH,NHD->BTD", (2, 3, 2, 4), (2, 4, 5), ("batch", "length", "width"), True),
    ("BTI,OI->BTO", (2, 3, 4), (5, 4), ("batch", "length", "mlp"), False),
    ("BTKH,BSKH->BKTS", (2, 3, 2, 4), (2, 5, 2, 4), ("batch", "kv_heads", "length", "slots"), False),
]


def draws(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


@pytest.mark.parametrize("eqn, left, right, out, matrices", FORMS, ids=[form[0] for form in FORMS])
def test_einsum_and_its_gradients(eqn, left, right, out, matrices):
    x, w, g = draws(left, right, jnp.einsum(eqn, jnp.zeros(left), jnp.zeros(right)).shape)

    def with_gradients(product):
        y, pull = jax.vjp(product, x, w)
        return y, *pull(g)

    got = with_gradients(lambda x, w: sharding.einsum(eqn, x, w, out))
    expected = with_gradients(lambda x, w: jnp.einsum(eqn, x, w))
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    traced = jax.make_jaxpr(lambda x, w: sharding.einsum(eqn, x, w, out, dtype=jnp.float32))(x, w)
    (product,) = [e for e in traced.jaxpr.eqns if e.primitive.name == "dot_general"]
    assert all(v.aval.ndim == 2 for v in product.invars) == matrices


def test_on_a_mesh_rows_stay_where_they_are():
    """Rows of two axes made one would lie elsewhere."""
    x, w = draws((2, 3, 4), (4, 5))
    with jax.set_mesh(sharding.make_mesh(2, 2, 2)):
        traced = jax.make_jaxpr(lambda x, w: sharding.einsum("BTD,DF->BTF", x, w, ("batch", "length", "mlp")))(x, w)
    (product,) = [e for e in traced.jaxpr.eqns if e.primitive.name == "dot_general"]
    assert product.invars[0].aval.ndim == 3


def test_as_dense_layers_call_it():
    x, w = draws((2, 3, 4), (4, 5))
    dimensions = (((2,), (0,)), ((), ()))
    got, expected = (f(x, w, dimensions, precision=None) for f in (sharding.dot_general, jax.lax.dot_general))
    np.testing.assert_allclose(got, expected, rtol=1e-6)

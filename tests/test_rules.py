"""Rules of numbers, words and lists; and that every command's flags keep them."""

from argparse import Namespace

import pytest

from janus_jax.errors import UserError
from janus_jax.rules import FLAGS, NOT_NEGATIVE, POSITIVE, SHARE, Rule, check_flags, whole

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "rule, good, bad, words",
    [
        (SHARE, (0, 1, 0.5), (-0.1, 1.1, NAN, INF, True, "0.5", None), "a number at least 0 and at most 1"),
        (POSITIVE, (1e-9, 3), (0, -1, NAN, INF), "a number above 0"),
        (NOT_NEGATIVE, (0, 0.0), (-1e-9, NAN, INF), "a number at least 0"),
        (Rule(), (-1.0, 0), (NAN, INF, -INF, "x"), "a number"),
        (whole(1), (1, 2**31 - 1), (0, 1.0, True, 2**31, NAN), "a whole number at least 1"),
        (whole(2, 9), (2, 9), (1, 10), "a whole number at least 2 and at most 9"),
        (Rule(bool), (True, False), (1, "True", None), "True or False"),
        (Rule(str), ("", "a"), (1, None), "a text"),
        (Rule(choices=("a", "b")), ("a",), ("c", 1, None), "one of a, b"),
        (Rule(least=0, count=2), ((0, 1.5), [1, 1]), ((0,), (0, -1), (0, NAN), 1, "01"), "a list of 2, each a number"),
        (Rule(str, count=-1), ((), ("a",)), ((1,), "a"), "a list, each a text"),
    ],
)
def test_what_a_rule_allows(rule, good, bad, words):
    assert all(map(rule.allows, good))
    assert not any(map(rule.allows, bad))
    assert str(rule).startswith(words)


@pytest.mark.parametrize(
    "name, value",
    [
        *(("cfg", value) for value in (NAN, INF, -1.0)),
        *(("temperature", value) for value in (NAN, INF, -0.5)),
        *(("seed", value) for value in (-1, 2**32)),
        *((name, 0) for name in ("samples", "rounds", "batch", "max_tokens", "prompts_per_category")),
    ],
)
def test_flags_out_of_range(name, value):
    with pytest.raises(UserError, match=f"^--{name.replace('_', '-')} is .*: it must be a (whole )?number"):
        check_flags(Namespace(**{name: value}))


def test_flags_that_are_not_given():
    check_flags(Namespace(**dict.fromkeys(FLAGS), prompt=None, out=3))

"""What a number, a word or a list must be to make sense: one Rule for each setting and each flag.

A rule says in words what it asks for, so that a refusal names the mend. NaN and infinities are no numbers here.
"""

import dataclasses
import math
import re

from janus_jax.errors import UserError

LARGEST = 2**31 - 1  # what integers on the devices can be


@dataclasses.dataclass(frozen=True)
class Rule:
    """kind: int, float (a whole number will do), bool or str; least, most: bounds, themselves allowed; above: an
    exclusive one; choices: the only values; count: a list of so many values, each as the rule says, -1 = any number."""

    kind: type = float
    least: float | None = None
    most: float | None = None
    above: float | None = None
    choices: tuple = ()
    count: int = 0

    def allows(self, value) -> bool:
        """Whether a value is what the rule asks for."""
        if self.count:
            one = dataclasses.replace(self, count=0)
            fits = isinstance(value, (tuple, list)) and self.count in (-1, len(value))
            return fits and all(map(one.allows, value))
        if self.choices:
            return value in self.choices
        if self.kind in (bool, str):
            return isinstance(value, self.kind)
        kinds = int if self.kind is int else (int, float)
        return (
            isinstance(value, kinds)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and not (self.least is not None and value < self.least)
            and not (self.most is not None and value > self.most)
            and not (self.above is not None and value <= self.above)
        )

    def __str__(self):
        """What is asked for, in words."""
        if self.count:
            many = "a list" if self.count < 0 else f"a list of {self.count}"
            return f"{many}, each {dataclasses.replace(self, count=0)}"
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.kind in (bool, str):
            return {bool: "True or False", str: "a text"}[self.kind]
        most = None if self.most == LARGEST else self.most
        bounds = {"at least": self.least, "above": self.above, "at most": most}
        bounds = " and ".join(f"{word} {bound}" for word, bound in bounds.items() if bound is not None)
        return f"{'a whole number' if self.kind is int else 'a number'} {bounds}".rstrip()


def whole(least: int, most: int = LARGEST, **more) -> Rule:
    """A whole number."""
    return Rule(int, least, most, **more)


SHARE = Rule(least=0, most=1)
POSITIVE = Rule(above=0)
NOT_NEGATIVE = Rule(least=0)

# Of the flags of all commands, by name; truncation's are in sampling/density. A flag that is not given breaks no rule.
FLAGS = {
    "cfg": NOT_NEGATIVE,
    "temperature": NOT_NEGATIVE,
    **dict.fromkeys(
        ("samples", "rounds", "batch", "prompts_per_category", "words", "max_tokens", "lookahead"), whole(1)
    ),
    "seed": whole(0, 2**32 - 1),
    "first_sample": whole(0),
    "label_threshold": Rule(),
    "port": whole(1, 65535),
    "seconds": POSITIVE,
}


def check_flags(args) -> None:
    """Raises UserError for the first of a command's flags (an argparse.Namespace) that breaks its rule."""
    for name, rule in FLAGS.items():
        value = getattr(args, name, None)
        if value is not None and not rule.allows(value):
            raise UserError(f"--{name.replace('_', '-')} is {value}: it must be {rule}")


def check_settings(config, table: dict[str, Rule]) -> None:
    """Raises UserError for the first setting of a table that breaks its rule, or that the configuration lacks."""
    for name, rule in table.items():
        if name not in config:
            raise UserError(f"the configuration has no {name}: add config.{name}, {rule}")
        if not rule.allows(config[name]):
            raise UserError(f"config.{name} is {config[name]!r}: set --config.{name} to {rule}")


def check_patterns(config, name: str) -> None:
    """Raises UserError where a setting is no list of regular expressions."""
    for pattern in config[name]:
        try:
            re.compile(pattern)
        except re.error as error:
            raise UserError(f"config.{name} holds {pattern!r}, which is no regular expression: {error}") from error

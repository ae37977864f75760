"""Configuration fields that declare which values make sense, beside their defaults. `check`, called in a dataclass's
__post_init__, holds every value against its declaration, wherever it came from."""

import dataclasses
import math

from janus_jax.errors import UserError


def whole(default: int, least: int, most: int):
    """A whole number from `least` to `most`."""

    def fits(value):
        return _is_whole(value) and least <= value <= most

    return _field(default, fits, int, f"a whole number from {least} to {most}")


def wholes(default: tuple[int, ...], least: int, most: int, longest: int):
    """One to `longest` whole numbers from `least` to `most`; a list, as JSON gives it, becomes a tuple."""

    def fits(value):
        return (
            isinstance(value, (list, tuple))
            and 1 <= len(value) <= longest
            and all(_is_whole(one) and least <= one <= most for one in value)
        )

    return _field(default, fits, lambda v: tuple(map(int, v)), f"1 to {longest} whole numbers from {least} to {most}")


def real(default: float, most: float):
    """A number above 0, at most `most`."""

    def fits(value):
        return isinstance(value, float | int) and not isinstance(value, bool) and 0 < value <= most

    return _field(default, fits, float, f"a number above 0, at most {most:g}")


def switch(default: bool):
    """True or False."""
    return _field(default, lambda value: isinstance(value, bool), bool, "true or false")


def choice(default: str, known):
    """One of the words `known`."""
    return _field(default, lambda value: isinstance(value, str) and value in known, str, f"one of {', '.join(known)}")


def _is_whole(value):
    try:  # numpy's integers, too; True is none of them
        return not isinstance(value, (bool, float)) and math.trunc(value) == value
    except (TypeError, ValueError, OverflowError):
        return False


def _field(default, fits, plain, words):
    return dataclasses.field(default=default, metadata={"fits": fits, "plain": plain, "words": words})


def check(config, part: str = "") -> None:
    """Raises UserError naming the first field of a frozen dataclass whose value is not what it declares. part: what
    the fields are called by in messages, as "llama."."""
    for field in dataclasses.fields(config):
        if "fits" in field.metadata:
            value = getattr(config, field.name)
            if not field.metadata["fits"](value):
                raise UserError(f"{part}{field.name} is {str(value)[:40]!r}: it must be {field.metadata['words']}")
            object.__setattr__(config, field.name, field.metadata["plain"](value))


def build(cls, entries, part: str = ""):
    """cls(**entries) of a mapping, as JSON gives it. Raises UserError for what is no mapping and for unknown keys, and
    as the class does."""
    if not isinstance(entries, dict):
        raise UserError(f"{part.rstrip('.') or 'the model'} is {str(entries)[:40]!r}: it must be an object")
    known = {field.name for field in dataclasses.fields(cls)}
    for key in entries:
        if key not in known:
            raise UserError(f"unknown key {part + str(key)!r} in the model configuration")
    return cls(**entries)

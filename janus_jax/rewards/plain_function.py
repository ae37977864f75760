"""A judge that is a plain Python function, named as module:function; and how anything so named is found."""

import importlib
import os
import sys
from collections.abc import Callable

from janus_jax.errors import UserError
from janus_jax.rewards.judge import Judge, as_judge


def load(name: str, place: str) -> Judge:
    """The judge `module:function`, see judge.as_judge. Raises UserError where there is no such function."""
    return as_judge(found(name, place), name)


def found(name: str, place: str) -> Callable:
    """The function `module:function`; the module lies in the working directory or where Python finds it. place: what
    the name is called in messages. Raises UserError where there is no such function."""
    module_name, _, path = name.partition(":")
    if not module_name or not path:
        raise UserError(f"{place} is {name!r}: name a function as module:function, like my_judge:score")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        missing = (
            isinstance(error, ModuleNotFoundError) and error.name and f"{module_name}.".startswith(f"{error.name}.")
        )
        if missing:
            raise UserError(
                f"{place}: there is no module {error.name} in the working directory or on PYTHONPATH: put it there"
            ) from error
        said = " ".join(str(error).split())[:200]
        raise UserError(f"{place}: importing {module_name} raised {type(error).__name__}: {said}") from error
    value = module
    for part in path.split("."):
        if not hasattr(value, part):
            raise UserError(f"{place}: {module_name} has no {path}: name a function that it defines")
        value = getattr(value, part)
    if not callable(value):
        raise UserError(f"{place}: {name} is {type(value).__name__} and no function: name one that can be called")
    return value

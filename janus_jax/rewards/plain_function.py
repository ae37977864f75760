"""A judge that is a plain Python function, named as module:function."""

import importlib
import os
import sys

from janus_jax.errors import UserError
from janus_jax.rewards.judge import Judge, as_judge


def load(name: str, place: str) -> Judge:
    """The judge `module:function`, see judge.as_judge; the module lies in the working directory or where Python finds
    it. place: what the name is called in messages. Raises UserError where there is no such function."""
    module_name, _, path = name.partition(":")
    if not module_name or not path:
        raise UserError(f"{place} is {name!r}: name a function as module:function, like my_judge:score")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = importlib.import_module(module_name)
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
    for part in path.split("."):
        if not hasattr(found, part):
            raise UserError(f"{place}: {module_name} has no {path}: name a function that it defines")
        found = getattr(found, part)
    if not callable(found):
        raise UserError(f"{place}: {name} is {type(found).__name__} and no function: name one that can be called")
    return as_judge(found, name)

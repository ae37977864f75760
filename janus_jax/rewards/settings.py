"""The sub-tree config.reward of an experiment, and the judge that it describes.

config.reward = ConfigDict(settings.DEFAULTS)
"""

import functools
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import httpx
from ml_collections import ConfigDict

from janus_jax.errors import UserError
from janus_jax.rewards import chat_endpoint, plain_function, released_http, shapes, weighted
from janus_jax.rewards.endpoint import Endpoint
from janus_jax.rewards.judge import Judge
from janus_jax.shapes.world import SHIPPED, World

KINDS = ("shapes", "model", "chat", "released", "python", "weighted")
LIMIT_NAMES = ("max_tokens", "max_completion_tokens")
# Beside each key the kinds that have it.
DEFAULTS = {
    # "shapes" (the world's verifier), "model" (the policy), "chat", "released", "python" or "weighted"
    "kind": "shapes",
    "weights": {},  # all: name of a score ("following", "preserving" of edits) -> its weight; {} = the one score itself
    "checkpoint": "",  # model: another model to judge; "" = the policy as it began
    "function": "",  # python: module:function, as of judge.as_judge; the module is also looked for where one works
    "url": "",  # chat: the base that ends in /v1; released: the address itself
    "model": "",  # chat: the name under which the server serves it
    "api_key_env": "",  # chat, released: the environment variable that holds the bearer token; "" = none
    "concurrency": 16,  # chat, released: questions under way at once, in a pod of each process
    "timeout_s": 30.0,  # chat, released: seconds of one attempt
    "retries": 4,  # chat, released: further attempts
    "questions": "",  # chat: a JSON file {prompt: [question, ...]}; a prompt without any: one about the whole prompt
    "top_logprobs": chat_endpoint.TOP,  # chat: alternatives to the first token; the server has to allow as many
    # chat: what the server calls the most tokens of an answer, "max_tokens" or "max_completion_tokens"
    "limit_name": "max_tokens",
    # chat: what else a request says, like {"chat_template_kwargs": {"enable_thinking": False}}
    "extra_body": {},
    "parts": {},  # weighted: name -> such a sub-tree with a weight; keys that it leaves out are as here
}
PLACE = "config.reward"


def make_judge(
    reward: ConfigDict | dict,
    place: str = PLACE,
    transport: httpx.AsyncBaseTransport | None = None,
    own: Judge | None = None,
    world: World = SHIPPED,
) -> Judge:
    """The judge that `reward` describes; `place` is what its keys are called in messages; own: the judge of kind
    "model"; world: the one whose verifier kind "shapes" is. Nothing is asked yet. Raises UserError, naming the key to
    change, for whatever does not describe a judge."""
    settings = complete(reward, place)
    kind = settings["kind"]
    if kind == "shapes":
        return functools.partial(shapes.judge, world=world)
    if kind == "model":
        if own is None:
            raise UserError(f"{place}.kind='model' is the model in training, which train_rl alone has: use it there")
        return own
    if kind == "weighted":
        return weighted.make_judge(
            [
                (weight, make_judge(part, part_place, transport, own, world), part.get("weights", {}))
                for part_place, weight, part in parts_of(settings, place)
            ]
        )
    if kind == "python":
        return plain_function.load(settings["function"], f"{place}.function")
    url = _url(settings["url"], place)
    if kind == "chat":
        url = url if url.endswith("/chat/completions") else f"{url}/chat/completions"
    endpoint = Endpoint(
        url,
        headers=_headers(settings["api_key_env"], place),
        concurrency=settings["concurrency"],
        timeout_s=settings["timeout_s"],
        retries=settings["retries"],
        transport=transport,
    )
    if kind == "released":
        return released_http.make_judge(endpoint)
    if not settings["model"]:
        raise UserError(f"{place}.model is empty: give the name under which the server serves its model")
    questions = _questions(settings["questions"], place)
    how = {name: settings[name] for name in ("top_logprobs", "limit_name", "extra_body")}
    return chat_endpoint.make_judge(endpoint, settings["model"], questions, **how)


def complete(reward: ConfigDict | dict, place: str = PLACE) -> dict:
    """DEFAULTS with what `reward` changes, checked, as plain dicts. Raises UserError."""
    if isinstance(reward, ConfigDict):
        reward = reward.to_dict()
    if not isinstance(reward, dict):
        raise UserError(f"{place} is {reward!r}: make it a ConfigDict with the key kind")
    for key in reward:
        if key not in DEFAULTS:
            raise UserError(f"unknown key {place}.{key}: the keys are {', '.join(DEFAULTS)}")
    settings = {**DEFAULTS, **reward}
    for key, default in DEFAULTS.items():
        kinds = (int, float) if isinstance(default, float) else type(default)
        if not isinstance(settings[key], kinds) or isinstance(settings[key], bool):
            raise UserError(f"{place}.{key} is {settings[key]!r}: give a value like {default!r}")
    if settings["kind"] not in KINDS:
        raise UserError(f"{place}.kind {settings['kind']!r} is none of {', '.join(KINDS)}")
    for key, least in (("concurrency", 1), ("retries", 0), ("top_logprobs", 2)):
        if settings[key] < least:
            raise UserError(f"{place}.{key} is {settings[key]}: it must be at least {least}")
    if not 0 < settings["timeout_s"] < math.inf:
        raise UserError(f"{place}.timeout_s is {settings['timeout_s']}: give the seconds that one attempt may take")
    if settings["limit_name"] not in LIMIT_NAMES:
        raise UserError(f"{place}.limit_name {settings['limit_name']!r} is none of {', '.join(LIMIT_NAMES)}")
    try:
        json.dumps(settings["extra_body"], allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{place}.extra_body cannot be sent as JSON ({error}): give texts, numbers, lists") from error
    for name, weight in settings["weights"].items():
        if not _is_number(weight):
            raise UserError(f"{place}.weights.{name} is {weight!r}: give a number")
    if settings["weights"] and not any(settings["weights"].values()):
        raise UserError(f"{place}.weights are all 0: give one score a weight")
    return settings


def parts_of(settings: dict, place: str = PLACE) -> list[tuple[str, float, dict]]:
    """(place, weight, sub-tree without its weight) of each part of a weighted reward that has a weight other than 0.
    Raises UserError."""
    parts = []
    for name, part in settings["parts"].items():
        here = f"{place}.parts.{name}"
        if not isinstance(part, dict) or "weight" not in part:
            raise UserError(f"{here} has no weight: make it a ConfigDict with the keys kind and weight")
        weight = part["weight"]
        if not _is_number(weight):
            raise UserError(f"{here}.weight is {weight!r}: give a number")
        part = {key: value for key, value in part.items() if key != "weight"}
        complete(part, here)  # also where the weight is 0: a mistake is to be seen before the weight is raised
        if weight:
            parts.append((here, float(weight), part))
    if not parts:
        raise UserError(f"{place}.parts holds no part with a weight other than 0: add one")
    return parts


def leaves(reward: ConfigDict | dict, place: str = PLACE) -> list[tuple[str, dict]]:
    """(place, settings) of every judge in `reward` that is no sum: itself, or those of its parts. Raises UserError."""
    settings = complete(reward, place)
    if settings["kind"] != "weighted":
        return [(place, settings)]
    return [leaf for here, _, part in parts_of(settings, place) for leaf in leaves(part, here)]


def checkpoint_of(reward: ConfigDict | dict) -> str:
    """The checkpoint of the reward's kind "model"; "" where it is the policy's, or no such kind is asked. Raises
    UserError where several are named: one model judges."""
    named = {settings["checkpoint"] for _, settings in leaves(reward) if settings["kind"] == "model"}
    if len(named) > 1:
        raise UserError(f"{PLACE} names several checkpoints ({', '.join(sorted(named))}): one model judges")
    return next(iter(named), "")


def on_devices(reward: ConfigDict | dict) -> bool:
    """Whether some of the reward is computed where the model is. Raises UserError."""
    return any(settings["kind"] == "model" for _, settings in leaves(reward))


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _url(url, place) -> str:
    try:
        parsed = httpx.URL(url)
        usable = parsed.scheme in ("http", "https") and parsed.host
    except httpx.InvalidURL:
        usable = False
    if not url:
        raise UserError(f"{place}.url is empty: give the endpoint's address, like http://localhost:8000/v1")
    if not usable:
        raise UserError(f"{place}.url {url!r} is no address: it looks like http://localhost:8000/v1")
    return url.rstrip("/")


def _headers(variable, place) -> dict:
    if not variable:
        return {}
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(
            f"{place}.api_key_env names the environment variable {variable}, which is not set: export it, or "
            f"set {place}.api_key_env to ''"
        )
    if not key.isascii() or not key.isprintable():
        raise UserError(
            f"the environment variable {variable} holds no key: it has characters that a header cannot have"
        )
    return {"Authorization": f"Bearer {key}"}


def _questions(path, place) -> Callable[[str], list[str]]:
    if not path:
        return chat_endpoint.whole_prompt
    try:
        listed = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{place}.questions: cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}.questions: {path} is not JSON: make it {{prompt: [question, ...]}}") from error
    if not isinstance(listed, dict):
        raise UserError(f"{place}.questions: {path} is no object: make it {{prompt: [question, ...]}}")
    for prompt, questions in listed.items():
        if not isinstance(questions, list) or not questions or not all(q and isinstance(q, str) for q in questions):
            raise UserError(f"{place}.questions: {path} has no list of questions for {prompt!r}")
    return lambda prompt: listed.get(prompt) or chat_endpoint.whole_prompt(prompt)

"""What reward_check says of judges that will do and of those that will not."""

import base64
import io
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stub_endpoint import completion, reply, said, server

from janus_jax import reward_check
from janus_jax.errors import UserError
from janus_jax.rewards import probes
from janus_jax.shapes import text, verify


def verifier(handler, asked):
    """The verifier behind the interface of a chat endpoint."""
    image, question = asked["messages"][0]["content"]
    sent = base64.b64decode(image["image_url"]["url"].partition(",")[2])
    prompt = question["text"].split('"')[1]
    reading = verify.read(np.asarray(Image.open(io.BytesIO(sent))))
    reply(handler, said(min(max(verify.score(text.parse(prompt), reading), 0.01), 0.99)))


def opposite(handler, asked):
    """A judge that prefers what is wrong."""

    image, question = asked["messages"][0]["content"]
    sent = base64.b64decode(image["image_url"]["url"].partition(",")[2])
    reading = verify.read(np.asarray(Image.open(io.BytesIO(sent))))
    reply(handler, said(0.1 if verify.matches(text.parse(question["text"].split('"')[1]), reading) else 0.9))


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(probes, "SIDE", 64)  # the verifier reads small pictures sooner
    monkeypatch.setattr(reward_check, "ONE_BY_ONE", 4)
    file = tmp_path / "experiment.py"
    file.write_text(
        "from ml_collections import ConfigDict\n"
        "from janus_jax.rewards import settings\n\n\n"
        "def get_config():\n"
        "    config = ConfigDict()\n"
        "    config.reward = ConfigDict({**settings.DEFAULTS, 'model': 'm', 'retries': 0})\n"
        "    return config\n"
    )
    return str(file)


def checked(capsys, config, *flags):
    """(exit status, lines) of reward_check."""
    try:
        reward_check.main(["--config", config, *flags])
        status = 0
    except SystemExit as error:
        status = error.code
    return status, capsys.readouterr().out.splitlines()


def test_check_usable(config, capsys):
    with server(verifier) as (url, _):
        status, lines = checked(capsys, config, "--config.reward.kind=chat", f"--config.reward.url={url}")
    assert status == 0 and lines[-1] == "usable"
    assert all(line.startswith("ok ") for line in lines[:-1])
    for name in (
        "answers: 48 of 48",
        "logprobs: 48 of 48",
        "latency: median",
        "p95",
        "at concurrency 16",
        "order: right",
    ):
        assert any(name in line for line in lines), name


def test_check_of_the_verifier_itself(config, capsys):
    assert checked(capsys, config)[0] == 0


@pytest.mark.parametrize(
    "handle, words",
    [
        (lambda handler, asked: reply(handler, {"choices": [{"message": {}}]}), "logprobs: no logprobs"),
        (
            lambda handler, asked: reply(handler, {"choices": [{"finish_reason": "content_filter"}]}),
            "logprobs: content filter: the server withholds its answer (content_filter); the server filters contents",
        ),
        (
            lambda handler, asked: reply(handler, {"error": {"code": "content_policy_violation"}}, 400),
            'answers: HTTP 400: {"error": {"code": "content_policy_violation"}}; the server filters contents',
        ),
        (
            lambda handler, asked: reply(handler, {"error": "use 'max_completion_tokens' instead"}, 400),
            "set config.reward.limit_name to max_completion_tokens",
        ),
        (
            lambda handler, asked: reply(handler, completion(("<think>", 0.9), ("Yes", 0.1))),
            "logprobs: the model thinks first",
        ),
        (lambda handler, asked: reply(handler, {"choices": "?"}), "logprobs: not of the expected form"),
        (lambda handler, asked: reply(handler, {"error": "who?"}, 404), "config.reward.url right"),
        (lambda handler, asked: reply(handler, {"error": "who?"}, 401), "config.reward.api_key_env"),
        (lambda handler, asked: reply(handler, {}, 500), "answers: HTTP 500"),
        (lambda handler, asked: reply(handler, said(0.5)), "order: right pictures score 0.500, wrong ones 0.500"),
        (opposite, "in 0% of 24 pairs"),
    ],
    ids=[
        "no logprobs",
        "filtered",
        "refused",
        "limit",
        "thinks",
        "other form",
        "404",
        "401",
        "500",
        "constant",
        "opposite",
    ],
)
def test_check_not_usable(handle, words, config, capsys):
    with server(handle) as (url, _):
        status, lines = checked(capsys, config, "--config.reward.kind=chat", f"--config.reward.url={url}")
    assert status == 1 and lines[-1] == "not usable"
    assert any(line.startswith("FAIL") and words in line for line in lines), lines


def test_check_of_an_endpoint_that_loses_answers(config, capsys):
    numbers = itertools.count(1)  # next() is one step for the interpreter: handlers run in threads

    def handle(handler, asked):
        if next(numbers) % 4 == 0:
            reply(handler, {}, 500)
        else:
            verifier(handler, asked)

    with server(handle) as (url, _):
        flags = ("--config.reward.kind=chat", f"--config.reward.url={url}")
        status, lines = checked(capsys, config, *flags)
        assert status == 1
        assert any("answers: 36 of 48" in line and line.startswith("FAIL") for line in lines), lines
        assert any(line.startswith("ok ") and "order" in line for line in lines)
        assert checked(capsys, config, *flags, "--config.reward.retries=4")[0] == 0


def test_check_of_a_sum_names_the_part_that_fails(config, tmp_path, capsys):
    file = tmp_path / "sum.py"
    with server(lambda handler, asked: reply(handler, {"success": False})) as (url, _):
        parts = {"world": {"kind": "shapes", "weight": 1.0}, "old": {"kind": "released", "url": url, "weight": 0.5}}
        file.write_text(
            "from ml_collections import ConfigDict\n\n\n"
            f"def get_config():\n    return ConfigDict({{'reward': {{'kind': 'weighted', 'parts': {parts!r}}}}})\n"
        )
        status, lines = checked(capsys, str(file))
        assert status == 1
        failed = [line for line in lines if line.startswith("FAIL")]
        assert len(failed) == 1 and "config.reward.parts.old: score: success is False" in failed[0]
        assert checked(capsys, str(file), "--config.reward.parts.old.weight=0.0")[0] == 0


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--config.reward.kind=magic"], "config.reward.kind"),
        (["--config.reward.kind=chat"], "config.reward.url is empty"),
        (["--config.reward.retries=many"], "retries"),
        (["--config.reward.nonsense=1"], "nonsense"),
        (["--workdir=x"], "workdir"),
        (["stray"], "stray"),
    ],
)
def test_check_refuses_bad_input(flags, words, config):
    with pytest.raises(UserError) as caught:
        reward_check.main(["--config", config, *flags])
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_check_needs_a_reward(tmp_path):
    file = tmp_path / "none.py"
    file.write_text("from ml_collections import ConfigDict\n\n\ndef get_config():\n    return ConfigDict()\n")
    with pytest.raises(UserError, match="no config.reward"):
        reward_check.main(["--config", str(file)])


PLAIN = """
from janus_jax.rewards import shapes


def right(requests, pictures):
    return shapes.judge(requests, pictures)


def one(requests, pictures):
    return [0.5] * len(requests)


def short(requests, pictures):
    return [0.5]


def copies(requests, pictures):
    return {**shapes.judge(requests, pictures), "following": [1.0] * len(requests)}
"""


@pytest.fixture
def plain(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "plain_judge.py").write_text(PLAIN)
    yield lambda name: ("--config.reward.kind=python", f"--config.reward.function=plain_judge:{name}")
    sys.modules.pop("plain_judge", None)


def test_check_of_a_plain_function(config, plain, capsys):
    assert checked(capsys, config, *plain("right"))[0] == 0
    status, lines = checked(capsys, config, *plain("one"))
    assert status == 1 and any(line.startswith("FAIL  order") for line in lines)
    with pytest.raises(UserError, match="the judge plain_judge:short gives match as .1. scores of 48 pictures"):
        checked(capsys, config, *plain("short"), "--config.reward.retries=0")


def test_check_of_a_judge_of_edits(config, plain, capsys):
    """Each score has to tell right from wrong, and so has the reward that their weights make of them."""
    file = Path(config)
    weights = "    config.task, config.reward.weights = 'edit', {'following': 0.5, 'preserving': 1.0}\n"
    file.write_text(file.read_text().replace("    return config", f"{weights}    return config"))
    status, lines = checked(capsys, config)
    orders = [line for line in lines if line.startswith("ok ") and ": right pictures score" in line]
    assert status == 0 and [line.split(": right")[0] for line in orders] == [
        "ok    order of following",
        "ok    order of preserving",
        "ok    order",
    ]
    assert checked(capsys, config, *plain("right"))[0] == 0
    status, lines = checked(capsys, config, *plain("copies"))
    assert status == 1 and any(line.startswith("FAIL  order of following") for line in lines)
    file.write_text(file.read_text().replace("{'following': 0.5, 'preserving': 1.0}", "{}"))
    with pytest.raises(UserError, match="set config.reward.weights to the weight of each"):
        checked(capsys, config)


def test_check_of_both_tasks(config, plain, capsys):
    """One set of weights serves both; a judge that fails at one of them is not usable."""
    file = Path(config)
    weights = "{'match': 1.0, 'following': 0.5, 'preserving': 1.0}"
    both = f"    config.task, config.reward.weights = 'both', {weights}\n    return config"
    file.write_text(file.read_text().replace("    return config", both))
    status, lines = checked(capsys, config)
    orders = [line for line in lines if ": right pictures score" in line]
    assert status == 0 and [line.split(": right")[0].removeprefix("ok    ") for line in orders] == [
        *("order", "order of following", "order of preserving", "order")
    ]
    assert lines.index("pictures of prompts") < lines.index(orders[0]) < lines.index("edits") < lines.index(orders[1])
    status, lines = checked(capsys, config, *plain("copies"))
    assert status == 1 and any(line.startswith("FAIL  order of following") for line in lines)

"""`convert --push`: what goes to the hub, told by a stub of huggingface_hub's API, and what is refused."""

import inspect
import json
import sys
from pathlib import Path

import huggingface_hub
import pytest
from commands import refused

import janus_jax
from janus_jax import convert

RESULTS = {
    "suite": "shapes",
    "rounds": 3,
    "samples": 4,
    "n": 2400,
    "overall": {"first": 0.6431, "final": 0.7771},
    "stderr": {"first": 0.007, "final": 0.01},
    "repair_rate": 0.5,
    "spoil_rate": None,
    "judge_agreement": 0.9,
}


class StubApi:
    """HfApi with the calls that are made, and the files that are there then. `fails`: what the hub says."""

    calls: list = []
    fails: str | None = None

    def create_repo(self, repo_id, *, private=False, exist_ok=False):
        self.calls.append(("create_repo", repo_id, private, exist_ok))
        if self.fails:
            raise OSError(self.fails)
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(self, *, folder_path, repo_id, commit_message):
        self.calls.append(("upload_folder", repo_id, sorted(path.name for path in Path(folder_path).iterdir())))

    def upload_file(self, *, path_or_fileobj, path_in_repo, repo_id, commit_message):
        self.calls.append(("upload_file", repo_id, path_in_repo, path_or_fileobj.decode()))


@pytest.fixture
def api(monkeypatch):
    stub = type("Api", (StubApi,), {"calls": []})
    monkeypatch.setattr(huggingface_hub, "HfApi", stub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_stub")
    return stub


def test_the_calls_are_those_of_the_library():
    """The stub takes what the real API takes."""
    for name in ("create_repo", "upload_folder", "upload_file"):
        real = inspect.signature(getattr(huggingface_hub.HfApi, name)).parameters
        assert set(inspect.signature(getattr(StubApi, name)).parameters) <= set(real), name


def test_pushed_with_a_card(api, tmp_path, capsys):
    (tmp_path / "eval.json").write_text(json.dumps(RESULTS))
    flags = ["--src", "shapes-rl", "--dst", str(tmp_path / "m"), "--push", "me/shapes-rl", "--private"]
    convert.main([*flags, "--results", str(tmp_path / "eval.json")])
    assert capsys.readouterr().out == "https://huggingface.co/me/shapes-rl\n"
    made, folder, card = api.calls
    assert made == ("create_repo", "me/shapes-rl", True, True)
    assert folder[2] == ["config.json", "manifest.json", "params.safetensors", "tokenizer.model"]
    assert card[:3] == ("upload_file", "me/shapes-rl", "README.md")
    text = card[3]
    assert text.startswith("---\nlicense: apache-2.0\n") and 'janus_jax.load("me/shapes-rl")' in text
    assert "Converted from `shapes-rl`" in text and "| final | 0.777 | 0.010 |" in text and "4.7M parameters" in text
    assert "--suite shapes --rounds 3 --samples 4" in text
    janus_jax.load(str(tmp_path / "m"))  # the card is not in the folder, whose manifest does not know it


def test_the_recipe_of_a_workdir(api, tmp_path):
    convert.main(["--src", "shapes-sft", "--dst", str(tmp_path / "w" / "model")])
    (tmp_path / "w" / "settings.json").write_text(
        json.dumps(
            {"steps": 400, "reward.kind": "a|b", "reward.url": "http://mine:8000", "prompts": "/home/me/prompts.txt"}
        )
    )
    flags = ["--src", str(tmp_path / "w"), "--dst", str(tmp_path / "m"), "--push", "me/x", "--license", "mit"]
    convert.main(flags)
    text = api.calls[-1][3]
    assert "| `prompts` | `prompts.txt` |\n| `reward.kind` | `a\\|b` |\n| `steps` | `400` |" in text
    assert "mine:8000" not in text
    convert.main([*flags, "--average", "shapes-sft"])  # no single training made that
    text = api.calls[-1][3]
    assert "Converted from `the mean of w, shapes-sft`" in text and "reward.kind" not in text


def test_refusals(api, tmp_path, monkeypatch):
    dst = tmp_path / "m"
    flags = ("--src", "shapes-rl", "--dst", dst, "--push", "me/x")
    assert "give OWNER/NAME" in refused(convert.main, *flags[:-1], "x")
    assert "--push: give that" in refused(convert.main, *flags[:4], "--license", "mit")
    (tmp_path / "no.json").write_text("{}")
    assert "no file of janus_jax.evaluate" in refused(convert.main, *flags, "--results", tmp_path / "no.json")
    convert.main(["--src", "shapes-rl", "--dst", str(tmp_path / "own")])
    assert "--push needs --license" in refused(convert.main, "--src", tmp_path / "own", *flags[2:])
    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub, "get_token", lambda: None)
        assert "hf auth login" in refused(convert.main, *flags)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "huggingface_hub", None)
        assert "pip install huggingface_hub" in refused(convert.main, *flags)
    assert not dst.exists() and not api.calls


def test_a_hub_that_refuses(api, tmp_path):
    api.fails = "403 Forbidden: you don't have the rights"
    said = refused(convert.main, "--src", "shapes-rl", "--dst", tmp_path / "m", "--push", "me/x")
    assert "403 Forbidden" in said and "is complete; give the same command again" in said
    janus_jax.load(str(tmp_path / "m"))

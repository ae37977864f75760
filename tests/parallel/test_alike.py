"""What the processes of a training must share, and the line that names those who differ."""

import json
from types import SimpleNamespace

import jax
from jax._src import distributed
from ml_collections import ConfigDict

from janus_jax.parallel import alike
from janus_jax.parallel.alike import differences


def test_differences_are_named():
    alike = {"commit": "1a", "jax": "0.10.2"}
    assert differences({0: alike, 1: dict(alike)}) == ""
    line = differences({0: alike, 1: alike, 2: {**alike, "commit": "2b"}, 3: {"commit": "2b", "jax": "0.10.2"}})
    assert line.startswith("the processes differ: commit is 1a on processes 0, 1, 2b on processes 2, 3: give all")
    line = differences({0: alike, 1: {**alike, "jax": "0.10.3"}, 2: {"commit": "1a"}})
    assert "jax is 0.10.2 on process 0, 0.10.3 on process 1, absent on process 2" in line and "commit" not in line


def test_facts(monkeypatch):
    monkeypatch.setenv("JANUS_COMMIT", "0123456789abcdef")
    facts = alike.facts(ConfigDict({"seed": 1, "model": {"llama": {"width": 64}}, "mesh": (-1, 1, 1)}))
    assert facts["commit"] == "0123456789ab" and facts["jax"] == jax.__version__
    assert facts["config.model.llama.width"] == "64" and facts["config.mesh"] == "[-1, 1, 1]"
    other = alike.facts(ConfigDict({"seed": 2, "model": {"llama": {"width": 64}}, "mesh": (-1, 1, 1)}))
    assert "config.seed is 1 on process 0, 2 on process 1: give" in differences({0: facts, 1: other})
    json.dumps(facts)


def test_all_refuse_in_the_same_words(monkeypatch):
    """The store is scripted: process 2 of four differs, and of each kind one process alone tells its facts."""
    store = {}
    client = SimpleNamespace(
        key_value_set=store.__setitem__,
        key_value_dir_get=lambda start: [(name, value) for name, value in store.items() if name.startswith(start)],
        wait_at_barrier=lambda name, milliseconds: None,
    )
    monkeypatch.setattr(distributed.global_state, "client", client)
    facts = {i: {"jax": "1" if i == 2 else "0"} for i in range(4)}

    def ask(i):
        try:
            return alike.refusal(facts[i], i, 4)
        except KeyError:  # it came before the others, for whom nobody waits here
            return None

    for _ in range(2):
        lines = [ask(i) for i in range(4)]
    assert set(lines) == {differences(facts)} and "jax is 0 on processes 0, 1, 3, 1 on process 2" in lines[0]
    assert [store[f"janus_jax/facts/{i}"] for i in range(4)] == ['{"jax": "0"}', "", '{"jax": "1"}', ""]
    store.clear()
    facts[2] = facts[0]
    assert [ask(i) for i in range(4)] == [""] * 4 and not any("facts" in name for name in store)

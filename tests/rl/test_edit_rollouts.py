"""Edits in stage 2: what is trained is what was drawn; both tasks in one batch; a rollout of both in a checkpoint."""

import collections
import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commands import CONFIGS
from PIL import Image
from policy_batches import live, real
from tiny import MODEL, NO, PAD, SEES, YES, I, grammar, params, processor, score
from trajectories import made, rollout_of

from janus_jax import cli
from janus_jax.checkpoints import loading
from janus_jax.errors import UserError
from janus_jax.parallel import sharding
from janus_jax.rl import objective, rollouts, stage
from janus_jax.rl.batches import layout, make, with_credit
from janus_jax.rl.credit import CREDITS, FINAL
from janus_jax.rl.programs import check_rows
from janus_jax.rl.requests import Files
from janus_jax.rl.scored import build
from janus_jax.sampling import introspect
from janus_jax.sampling.density import Sampling
from janus_jax.sampling.rollout import Rollout
from janus_jax.sequences.batch import CODE, SEEN, with_targets
from janus_jax.sequences.images import NORMALISED
from janus_jax.sequences.request import Request

pytestmark = pytest.mark.usefixtures("quick_compiles")

SIDE, PROMPT, ROUNDS = 16, 40, 2
SAMPLING = Sampling(cfg_weight=3.0, max_reason_tokens=5)


def source(seed=0, size=(16, 16)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


EDITS = [Request("make the circle blue", source(1)), Request("remove the cross", source(2, (24, 16)))]
DRAWINGS = [Request("two red circles"), Request("a blue square")]


def drawn(asked, samples=2):
    work = [(request, sample) for request in asked for sample in range(samples)]
    parts = introspect.rollouts(
        MODEL, params(), processor(), work, ROUNDS, SAMPLING, 7, batch=len(work), prompt_tokens=PROMPT
    )
    return Rollout.join(parts)


def batches(rollout, kind="trajectory", credited=None):
    shapes = layout(CREDITS[kind], grammar(), PROMPT, ROUNDS, SAMPLING.max_reason_tokens, sources=1)
    made = make(CREDITS[kind], rollout, grammar(), shapes, SIDE)
    return made if credited is None else with_credit(made, credited)


def test_what_an_edit_s_rows_are():
    """The source stands before the instruction in both: as codes, and as what the judge sees. Guidance takes the
    instruction away and nothing else."""
    t = dataclasses.replace(made(False, True), request=EDITS[1])
    rollout = dataclasses.replace(rollout_of([t], ROUNDS, 5), source=np.arange(I, dtype=np.int32)[None])
    painter, judge = batches(rollout)
    before, after = (ids.tolist() for ids in grammar().prompt(EDITS[1]))
    first = before + list(range(I)) + after + t.rounds[0].codes.tolist()
    assert real(painter, 0)[: len(first)] == first
    start = np.argmax(painter.mask[0])
    assert (painter.kind[0, start + len(before) :][:I] == CODE).all()
    assert live(painter.codes, 0)["ids"].tolist() == [code for shot in t.rounds for code in shot.codes.tolist()]
    changed = painter.uncond_ids[0] != painter.ids[0]
    words = processor().tokenizer.encode(EDITS[1].prompt, bos=False)
    assert painter.ids[0][changed].tolist() == words and (painter.uncond_ids[0][changed] == PAD).all()
    assert real(judge, 0)[: len(before) + SEES + len(after)] == before + [0] * SEES + after
    assert judge.pixels.shape[1] == ROUNDS + 1 and (judge.kind[0] == SEEN).sum() == (ROUNDS + 1) * SEES
    assert judge.pixels.dtype == np.uint8
    for pixels, picture in zip(judge.pixels[0], (EDITS[1].source, t.rounds[0].image), strict=False):
        np.testing.assert_array_equal(NORMALISED[pixels], processor().for_understanding(picture))


@pytest.fixture(scope="module")
def both():
    """A rollout of both tasks: four trajectories that draw, four that edit."""
    return Rollout.join([drawn(DRAWINGS), drawn(EDITS)])


def test_the_sampler_encodes_the_sources(both):
    pixels = np.stack([processor().for_generation(request.source) for request in EDITS])
    codes = np.asarray(MODEL.apply({"params": params()}, pixels, method="encode_codes"))
    np.testing.assert_array_equal(both.source, np.concatenate([np.zeros((4, I)), np.repeat(codes, 2, axis=0)]))
    assert both.source[4:].any() and {task: rows.tolist() for task, rows in both.tasks.items()} == {
        "draw": [0, 1, 2, 3],
        "edit": [4, 5, 6, 7],
    }


@pytest.mark.parametrize("kind", ["trajectory", "released/own_prompt", "pictures"])
def test_what_is_trained_is_what_was_drawn(both, kind):
    assert set(both.rounds[4:].tolist()) == {1, 2}  # some edits were drawn again
    painter, judge = batches(both, kind)
    codes = np.asarray(score(params(), painter, SAMPLING)["codes"])
    words = np.asarray(score(params(), judge, SAMPLING)["text"])
    painted, spoken = painter.codes.weight > 0, judge.text.weight > 0
    assert painted.any(1).all() and spoken.any(1).all()
    np.testing.assert_allclose(codes[painted], painter.codes.old_logps[painted], atol=1e-4, rtol=0)
    np.testing.assert_allclose(words[spoken], judge.text.old_logps[spoken], atol=1e-4, rtol=0)


def test_a_mixture_s_gradient_is_that_of_its_parts(both):
    """Over trajectories the loss is a mean: twice the gradient of both is the sum of that of each. (Each stands twice
    in a batch of its own, which has the same mean and the same shape.)"""
    credited = np.random.default_rng(0).standard_normal((8, FINAL + ROUNDS)).astype(np.float32)
    forward = objective.make_forward(MODEL, SAMPLING, (YES, NO))
    loss, prepare = objective.make_loss(0.1, 0.2, 0.2), objective.make_prepare("trajectory")

    @jax.jit
    def gradient(params, batches):
        return jax.grad(lambda params: loss(forward(params, prepared := prepare(batches)), prepared)[0])(params)

    def of(rows):
        some = batches(both.take(rows), credited=credited[rows])
        shifted = [targets.old_logps - 0.1 for targets in (some[0].codes, some[1].text)]
        return gradient(params(), jax.tree.map(jnp.asarray, with_targets(some, ref_logps=shifted)))

    whole, *parts = (of(np.array(rows)) for rows in (range(8), [0, 1, 2, 3] * 2, [4, 5, 6, 7] * 2))
    for mine, draws, edits in zip(*map(jax.tree.leaves, (whole, *parts)), strict=True):
        np.testing.assert_allclose(2 * mine, draws + edits, atol=5e-6, rtol=2e-4)
    assert all(float(jnp.abs(part["llama"]["lm_head"]).max()) > 1e-4 for part in parts)


def configured(init, **changed):
    settings = {
        **{"task": "both", "group": 2, "prompts_per_step": 4, "rounds": ROUNDS, "max_reason_tokens": 5},
        **{"cfg_weight": 3.0, "prompt_tokens": PROMPT, **changed},
    }
    flags = [f"--config.{name}={value}" for name, value in settings.items()]
    return cli.parse_config(
        ["--config", str(CONFIGS / "shapes_edit_rl.py"), f"--config.init={init}", *flags], "", workdir=False
    )[0]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("init")
    loading.save(folder, MODEL, params(), processor())
    return folder


def one_device():
    return sharding.mesh_of((1, 1, 1), jax.devices()[:1])


def by_hand(config, held, number):
    """A rollout of a step's requests that nobody drew."""
    asked, _ = rollouts.asked_at(config, held, number)
    each = [(request, sample) for request in asked for sample in range(config.group)]
    verdicts = [(True,), (False, True), (False, False)]
    trajectories = [
        dataclasses.replace(made(*verdicts[i % 3]), request=request, sample=sample)
        for i, (request, sample) in enumerate(each)
    ]
    codes = np.random.default_rng(0).integers(1, 16, (len(each), I)).astype(np.int32)
    edits = np.array([request.source is not None for request, _ in each])
    return dataclasses.replace(rollout_of(trajectories, ROUNDS, 5), source=np.where(edits[:, None], codes, 0))


def test_a_rollout_of_both_tasks_in_a_checkpoint(checkpoint):
    config = configured(checkpoint)
    with jax.set_mesh(mesh := one_device()):
        held, _ = stage.assemble(config, mesh, Files())
        rollout = by_hand(config, held, 3)
        scored = dataclasses.replace(build(held, rollout), gap=0.5)
        arrays = rollouts.to_arrays(config, held, rollouts.Flight(3, rollout, scored))
        forms = rollouts.abstract_arrays(config, held)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), arrays) == jax.tree.map(lambda x: (x.shape, x.dtype), forms)
        again = rollouts.from_arrays(config, held, 3, arrays)
    assert len(rollout.tasks["draw"]) == len(rollout.tasks["edit"]) == 4
    for name, array in {**rollout.arrays, "sample": rollout.sample}.items():
        np.testing.assert_array_equal(getattr(again.rollout, name), array)
    jax.tree.map(np.testing.assert_array_equal, again.scored.host, scored.host)
    assert again.rollout.source[4:].all() and again.scored.gap == 0.5


@pytest.fixture
def asked(monkeypatch):
    """What the sampler was asked for, call by call: (requests, what else); it draws nothing."""
    calls = []

    def sampler(model, params, processor, work, *more, **settings):
        calls.append(([request for request, _ in work], work, more, settings))
        trajectories = [dataclasses.replace(made(True), request=request, sample=sample) for request, sample in work]
        return iter([rollout_of(trajectories, ROUNDS, 5)])

    monkeypatch.setattr(rollouts, "rollouts", sampler)
    return calls


def test_each_task_is_drawn_by_itself(checkpoint, asked):
    config = configured(checkpoint, edit_share=0.25)
    with jax.set_mesh(mesh := one_device()):
        held, initial = stage.assemble(config, mesh, Files())
        rollout = rollouts.explore(config, dataclasses.replace(held, programs=Uncast(held.programs)), initial, 2)
    assert [len(requests) for requests, *_ in asked] == [6, 2] == [calls[3]["batch"] for calls in asked]
    assert [{r.source is None for r in requests} for requests, *_ in asked] == [{True}, {False}]
    assert {task: rows.tolist() for task, rows in rollout.tasks.items()} == {"draw": [*range(6)], "edit": [6, 7]}
    assert rollout.sample.tolist() == [0, 1] * 4


class Uncast:
    """Programs that draw with the parameters as they are."""

    def __init__(self, programs):
        self.by_row, self.cast = programs.by_row, lambda params: params


def test_without_edits_a_step_is_one_of_drawing_alone(checkpoint, asked):
    """With a share of 0 all that the sampler is asked for is as with the task draw, and so are the batch and what a
    checkpoint holds, which has no sources."""
    found = []
    for changed in ({"task": "both", "edit_share": 0.0}, {"task": "draw"}):
        config = configured(checkpoint, **changed)
        with jax.set_mesh(mesh := one_device()):
            held, initial = stage.assemble(config, mesh, Files())
            held = dataclasses.replace(held, programs=Uncast(held.programs))
            built = build(held, rollouts.explore(config, held, initial, 1))
            flight = rollouts.Flight(1, by_hand(config, held, 1), dataclasses.replace(built, gap=0.0))
            stored = rollouts.to_arrays(config, held, flight)
        assert "source" not in stored["trajectories"]
        assert held.layout == layout(CREDITS["released/own_prompt"], grammar(), PROMPT, ROUNDS, 5)
        found.append((built.host, stored))
    assert len(asked) == 2 and asked[0] == asked[1]
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_groups_that_tell_more_keep_the_share(monkeypatch):
    """Further rollouts replace idle groups by telling ones of the same task."""
    config = configured("x", redraws=2)
    monkeypatch.setattr(rollouts, "asked_at", lambda *_: (DRAWINGS + EDITS, 0))
    rolled = [by_hand(config, None, 0) for _ in range(3)]
    # of four groups, two of each task, these are idle
    idle = iter([[True, True, True, False], [False, False, False, True], [True, False, False, True]])
    drawn, looked = iter(rolled), []
    monkeypatch.setattr(rollouts, "explore", lambda *_: next(drawn))
    monkeypatch.setattr(rollouts, "ask", lambda *_: None)
    monkeypatch.setattr(rollouts, "awaited", lambda *_: True)
    blank = np.zeros((8, ROUNDS), np.float32)
    monkeypatch.setattr(rollouts, "of_all", lambda *_: rollouts.Rewards(blank, {}, blank))
    monkeypatch.setattr(rollouts, "advantages", lambda *_: None)
    monkeypatch.setattr(rollouts.monitor, "idle_groups", lambda *_: np.array(next(idle)))
    held = types.SimpleNamespace(look=lambda *pair: looked.append(pair))
    found = rollouts.collect(config, held, None, None, None, 0, None, None, collections.Counter())
    # two attempts have two telling groups that draw, and two that edit
    assert len(looked) == 2 and len(found.drawn[0]) == 16
    assert [request.prompt for request in found.rollout.requests[::2]] == [r.prompt for r in DRAWINGS + EDITS[::-1]]
    np.testing.assert_array_equal(
        found.rollout.source[4:], np.concatenate([rolled[0].source[6:], rolled[1].source[4:6]])
    )


def test_tasks_divide_over_the_mesh(checkpoint):
    shape = dataclasses.make_dataclass("Mesh", ["shape"])({"data": 4, "fsdp": 1, "tensor": 1})
    check_rows(configured(checkpoint), shape)
    with pytest.raises(UserError, match="6 trajectories that draw and 2 that edit .*4 parts.*edit_share"):
        check_rows(configured(checkpoint, edit_share=0.25), shape)


def test_pictures_are_paid_by_themselves():
    rollout = rollout_of([made(False, True), made(True)], 2)
    got = CREDITS["pictures"].segment_rewards(rollout, [[0.2, 0.7], [1.5, np.nan]], 2)
    np.testing.assert_array_equal(got, np.float32([[0.2, np.nan, 0.7], [1.5, np.nan, np.nan]]))

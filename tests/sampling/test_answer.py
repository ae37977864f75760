"""Chat and judge on the tiny model: against the model's own methods, against introspection, and as commands."""

import functools
import importlib
import json
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from commands import refused
from PIL import Image
from tiny import EOS, MODEL, NO, YES, processor, run
from tiny import params as short_spoken

import janus_jax
from janus_jax.checkpoints import loading
from janus_jax.errors import UserError
from janus_jax.sampling.answer import chat, judge
from janus_jax.sampling.density import Sampling
from janus_jax.sampling.introspect import introspect
from janus_jax.sequences import tokens
from janus_jax.sequences.request import Request
from janus_jax.shapes.world import SHIPPED

PROMPTS = ("two red circles", "a photo of a blue square to the left of a green triangle")
GREEDY = Sampling(text_top_k=1, max_reason_tokens=6)
SAMPLED = Sampling(temperature=0.7, text_top_k=50, max_reason_tokens=6)


pytestmark = pytest.mark.usefixtures("quick_compiles")


@functools.cache
def params():
    """Parameters whose answers are long enough to differ."""
    tree = short_spoken()
    head = tree["llama"]["lm_head"]
    return {**tree, "llama": {**tree["llama"], "lm_head": head.at[:, EOS].multiply(0.5)}}


def picture(seed, width=16, height=16):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


QUESTIONS = [
    ([], "Is there a red circle?"),
    ([picture(0)], "What is in the picture?"),
    ([picture(1, 20, 9), picture(2)], " What differs? "),
    ([picture(2), picture(1, 20, 9)], " What differs? "),
]


def ask(questions=QUESTIONS, sampling=GREEDY, **settings):
    return chat(MODEL, params(), processor(), questions, sampling, **settings)


@functools.cache
def answers(sampling=GREEDY):
    return ask(sampling=sampling)


def by_hand(pictures, question):
    """A greedy answer by whole forward passes, without cache, padding or batch."""
    encode = functools.partial(processor().encode, bos=False)
    text = lambda ids: run("embed_text", params(), jnp.asarray([ids], jnp.int32))  # noqa: E731
    pieces = [text(processor().encode(f"{tokens.SYSTEM_PROMPT}\n\n<|User|>: "))]
    for image in pictures:
        pixels = jnp.asarray(processor().for_understanding(image))[None]
        pieces += [text(encode("<begin_of_image>")), run("understand", params(), pixels)]
        pieces += [text(encode("<end_of_image>\n"))]
    embeds = jnp.concatenate([*pieces, text(encode(f"{question.strip()}\n\n<|Assistant|>:"))], axis=1)
    said = []
    while len(said) < GREEDY.max_reason_tokens and said[-1:] != [EOS]:
        more = jnp.concatenate([embeds, text(said)], axis=1) if said else embeds
        hidden = run("decode", params(), more, jnp.ones(more.shape[:2], bool))
        said.append(int(jnp.argmax(run("text_logits", params(), hidden)[0, -1])))
    return processor().decode(said)


def test_greedy_answers_are_those_of_whole_forward_passes():
    assert answers()[1] == by_hand(*QUESTIONS[1])
    assert answers()[2] == by_hand(*QUESTIONS[2])
    assert len(set(answers())) == 4  # the number of pictures matters, and their order


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
def test_an_answer_does_not_depend_on_the_others(sampling):
    assert ask(QUESTIONS[::-1], sampling, batch=3) == answers(sampling)[::-1]
    assert ask(QUESTIONS[:1], sampling) == answers(sampling)[:1]
    assert ask([]) == []


def test_the_seed_matters_where_words_are_sampled():
    assert answers(SAMPLED) != answers()
    assert ask(sampling=SAMPLED, seed=1) != answers(SAMPLED)
    assert ask(seed=1) == answers()


def test_listening():
    heard = ["" for _ in QUESTIONS]

    def listen(index, piece):
        assert piece
        heard[index] += piece

    assert ask(batch=3, listen=listen) == answers()
    assert heard == answers()


def test_judging_is_what_introspection_does():
    sampling = Sampling(cfg_weight=1.0, max_reason_tokens=6)
    trajectories = introspect(MODEL, params(), processor(), list(PROMPTS), 1, 1, sampling, seed=3)
    shots = [t.rounds[0] for t in trajectories]
    got = judge(MODEL, params(), processor(), [shot.image for shot in shots], PROMPTS, sampling, seed=3)
    for (p_yes, reason), shot in zip(got, shots, strict=True):
        assert p_yes == pytest.approx(shot.p_yes, abs=2e-4) and 0 < p_yes < 1
        assert reason == shot.reason
    # greedy: the verdict is the likelier one
    for p_yes, reason in judge(MODEL, params(), processor(), [shot.image for shot in shots], PROMPTS, batch=1):
        assert reason.startswith("Yes" if p_yes > 0.5 else "No")
    assert processor().decode([YES]) == "Yes" and processor().decode([NO]) == "No"


def test_an_edit_is_judged_beside_its_source():
    sampling = Sampling(cfg_weight=1.0, max_reason_tokens=6)
    requests = [Request("paint it red", picture(4)), Request("add a blue cross to it", picture(5, 20, 9))]
    shots = [t.rounds[0] for t in introspect(MODEL, params(), processor(), requests, 1, 1, sampling, seed=3)]
    images = [shot.image for shot in shots]
    got = judge(MODEL, params(), processor(), images, requests, sampling, seed=3)
    for (p_yes, reason), shot in zip(got, shots, strict=True):
        assert p_yes == pytest.approx(shot.p_yes, abs=2e-4) and reason == shot.reason
    swapped = [Request(a.prompt, b.source) for a, b in zip(requests, requests[::-1], strict=True)]
    other = judge(MODEL, params(), processor(), images, swapped, sampling, seed=3)
    assert all(abs(a[0] - b[0]) > 1e-4 for a, b in zip(got, other, strict=True))  # the source matters


def test_errors():
    ours = (MODEL, params(), processor())
    for call, words in (
        (lambda: ask([([], "  ")]), "question is empty"),
        (lambda: ask([(picture(0), "What is it?")]), "is a pair of pictures and a text"),
        (lambda: ask(["What is it?"]), "is a pair of pictures and a text"),
        (lambda: ask([([picture(0)] * 9, "what is it? " * 3000)]), "fewer pictures"),
        (lambda: judge(*ours, [picture(0)], []), "1 pictures do not go with 0 prompts"),
        (lambda: judge(*ours, [picture(0)], [" "]), "prompt is empty"),
    ):
        with pytest.raises(UserError, match=words) as error:
            call()
        assert "\n" not in str(error.value)


# The commands

CHAT, JUDGE = (importlib.import_module(f"janus_jax.{name}").main for name in ("chat", "judge"))


def test_importing_a_command_leaves_the_function_of_its_name():
    code = """
import janus_jax.chat, janus_jax.judge, janus_jax.sampling.introspect, janus_jax.sampling.answer
from janus_jax.chat import main
from janus_jax import judge
assert callable(main) and judge is janus_jax.judge
for name in ("chat", "judge", "introspect"):
    assert callable(getattr(janus_jax, name)), name
assert janus_jax.chat is janus_jax.sampling.answer.chat
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert janus_jax.chat is chat and janus_jax.judge is judge


@functools.cache
def expected(question):
    return chat(MODEL, params(), processor(), [([picture(0)], question)], GREEDY)[0]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "model"
    loading.save(folder, MODEL, params(), processor())
    picture(0).save(folder.parent / "a.png")
    picture(1, 20, 9).save(folder.parent / "b.png")
    return folder


def test_a_model_of_the_world_is_asked_without_a_system_sentence(tmp_path, capsys):
    loading.save(tmp_path / "m", MODEL, params(), processor(), world=SHIPPED)
    _, _, asked = loading.load(tmp_path / "m")
    assert asked.system == "" and asked.chat_prompt("What?") == tokens.chat_prompt("What?", 1, "")
    CHAT(["--checkpoint", str(tmp_path / "m"), "--max-tokens", "6", "--question", "What is it?"])
    alone = chat(MODEL, params(), processor(), [([], "What is it?")], GREEDY, system="")
    assert capsys.readouterr().out == alone[0] + "\n"
    assert chat(MODEL, params(), asked, [([], "What is it?")], GREEDY) == alone  # from Python, too
    loading.save(tmp_path / "n", MODEL, params(), processor())
    assert loading.load(tmp_path / "n")[2].system == tokens.SYSTEM_PROMPT


def test_chat_command(checkpoint, capsys, monkeypatch):
    flags = ["--checkpoint", str(checkpoint), "--max-tokens", "6"]
    CHAT([*flags, "--image", str(checkpoint.parent / "a.png"), "--question", "What is it?"])
    assert capsys.readouterr().out == expected("What is it?") + "\n"
    a, b = (str(checkpoint.parent / name) for name in ("a.png", "b.png"))
    CHAT([*flags, "--image", b, "--image", a, "--question", "What?", "--temperature", "0.5", "--top-k", "9"])
    capsys.readouterr()
    CHAT([*flags, "--question", "What is it?", "--system", ""])
    alone = chat(MODEL, params(), processor(), [([], "What is it?")], GREEDY, system="")
    assert capsys.readouterr().out == alone[0] + "\n"
    assert alone != ask([([], "What is it?")])
    half, asked = loading.load(checkpoint, "bfloat16"), []
    monkeypatch.setattr(loading, "load", lambda path, dtype, *mesh: asked.append(dtype) or half)
    CHAT([*flags, "--question", "What is it?", "--dtype", "bfloat16"])
    assert asked == ["bfloat16"] and half[1]["gen_embed"].dtype == jnp.bfloat16
    assert capsys.readouterr().out == chat(*half, [([], "What is it?")], GREEDY)[0] + "\n"


def test_judge_command(checkpoint, capsys):
    folder = checkpoint.parent
    lines = [{"image": name, "prompt": prompt} for name, prompt in zip(("a.png", "b.png"), PROMPTS, strict=True)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "\n")
    JUDGE(["--checkpoint", str(checkpoint), "--pairs", str(folder / "pairs.jsonl"), "--batch", "1"])
    got = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    pictures = [picture(0), picture(1, 20, 9)]
    for line, (p_yes, reason), prompt in zip(
        got, judge(MODEL, params(), processor(), pictures, PROMPTS), PROMPTS, strict=True
    ):
        assert line["prompt"] == prompt and line["reason"] == reason
        assert line["p_yes"] == pytest.approx(p_yes, abs=1e-5)
    JUDGE(["--checkpoint", str(checkpoint), "--image", str(folder / "a.png"), "--prompt", PROMPTS[0]])
    assert json.loads(capsys.readouterr().out)["reason"] == got[0]["reason"]


def test_bad_input_to_the_commands(checkpoint, tmp_path, capsys):
    (tmp_path / "cut.png").write_bytes((checkpoint.parent / "a.png").read_bytes()[:300])
    (tmp_path / "text.png").write_text("no picture")
    good = checkpoint.parent / "a.png"
    ask, look = (CHAT, "--checkpoint", checkpoint, "--question", "What?"), (JUDGE, "--checkpoint", checkpoint)
    for name in ("absent.png", "cut.png", "text.png"):
        assert name in refused(*ask, "--image", tmp_path / name)
        assert name in refused(*look, "--prompt", "a circle", "--image", tmp_path / name)
    assert "empty" in refused(CHAT, "--checkpoint", checkpoint, "--question", " ")
    assert "temperature" in refused(*ask, "--temperature", -1)
    assert "shapes-rl" in refused(CHAT, "--checkpoint", tmp_path / "absent", "--question", "What?")
    assert "--prompt" in refused(*look, "--image", good)
    assert "batch" in refused(*look, "--image", good, "--prompt", "a circle", "--batch", 0)
    assert "absent" in refused(*look, "--pairs", tmp_path / "absent.jsonl")
    shutil.copy(good, tmp_path / "a.png")
    right = json.dumps({"image": "a.png", "prompt": "a circle"})
    for line, words in (
        ("{", "line 2: it is not JSON"),
        ("[]", "line 2: it is no JSON object"),
        ('{"image": "x.png"}', "line 2: 'prompt' is missing"),
        ('{"image": "x.png", "prompt": "a circle"}', "line 2: the picture"),
        (json.dumps({"image": "a.png", "prompt": " "}), "line 2: the prompt is empty"),
        (json.dumps({"image": "a.png", "prompt": "red " * 30_000}), "positions"),
    ):
        (tmp_path / "pairs.jsonl").write_text(f"{right}\n{line}\n")
        assert words in refused(*look, "--pairs", tmp_path / "pairs.jsonl", "--allow-outside")
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"image": str(good), "prompt": "a circle"}) + "\n")
    assert "line 1: the path" in refused(*look, "--pairs", tmp_path / "pairs.jsonl")
    (tmp_path / "pairs.jsonl").write_text("\n")
    assert "no pair" in refused(*look, "--pairs", tmp_path / "pairs.jsonl")
    assert capsys.readouterr().out == ""

"""Questions about scenes: answers by hand, what counts as one, what is held out."""

import collections

import numpy as np
import pytest

from janus_jax.shapes import questions
from janus_jax.shapes.questions import KINDS, Question, right
from janus_jax.shapes.scene import Item, Scene

#   large red circle     large blue square
#   small red triangle   .
SCENE = Scene(
    (
        Item("circle", "red", 0.2, 0.2, 0.28),
        Item("square", "blue", 0.8, 0.2, 0.28),
        Item("triangle", "red", 0.2, 0.8, 0.19),
    )
)


def every(scene, kind, tries=400):
    """{text: answer} of all questions of a kind about a scene."""
    rng = np.random.default_rng(0)
    asked = [questions.ask(rng, scene, kind) for _ in range(tries)]
    found = {}
    for question in filter(None, asked):
        assert found.setdefault(question.text, question.answer) == question.answer
    return found


def test_answers_by_hand():
    assert every(SCENE, "count") == {
        "how many circles are there?": "one",
        "how many squares are there?": "one",
        "how many triangles are there?": "one",
        "how many crosses are there?": "no",
        "how many diamonds are there?": "no",
        "how many hearts are there?": "no",
        "how many stars are there?": "no",
    }
    assert every(SCENE, "color") == {
        "what color is the circle?": "red",
        "what color is the square?": "blue",
        "what color is the triangle?": "red",
    }
    assert every(SCENE, "shape") == {"which shape is blue?": "a square"}  # two are red
    placed = every(SCENE, "place")
    assert placed["what is left of the square?"] == "a circle"  # the triangle is as much below it
    assert placed["what is to the right of the circle?"] == "a square"
    assert placed["what is under the circle?"] == "a triangle" and placed["what is over the triangle?"] == "a circle"
    assert not any("of the triangle" in text for text in placed)
    present = every(SCENE, "present")
    assert present["is there a red circle?"] == "yes" and present["is there a blue circle?"] == "no"
    assert "is there a green circle?" not in present and "is there a red cross?" not in present
    (caption,) = every(SCENE, "describe").values()
    assert caption == "large red circle top left, large blue square top right, small triangle bottom left."


def test_no_single_answer_no_question():
    twins = Scene(tuple(Item("circle", "red", x, 0.5, 0.28) for x in (0.2, 0.8)))
    assert not every(twins, "color") and not every(twins, "shape") and not every(twins, "place")
    assert every(twins, "count")["how many circles are there?"] == "two"


def test_two_on_one_side_are_no_answer():
    row = Scene(
        tuple(Item(shape, "red", x, 0.5, 0.28) for shape, x in (("circle", 0.1), ("square", 0.5), ("cross", 0.9)))
    )
    placed = every(row, "place")
    assert placed["what is left of the square?"] == "a circle"
    assert "what is left of the cross?" not in placed


@pytest.mark.parametrize(
    "kind, text, answer, said, expected",
    [
        ("count", "how many circles are there?", "two", "Two.", True),
        ("count", "how many circles are there?", "two", "there are 2 circles", True),
        ("count", "how many circles are there?", "two", "two or three", False),
        ("count", "how many circles are there?", "no", "none", True),
        ("count", "how many circles are there?", "no", "circles", False),
        ("color", "what color is the square?", "red", "The square is red.", True),
        ("color", "what color is the square?", "red", "red and blue", False),
        ("color", "what color is the square?", "red", "No, it is red", False),
        ("shape", "which shape is red?", "a circle", "circle", True),
        ("shape", "which shape is red?", "a circle", "a circle or a square", False),
        ("shape", "which shape is red?", "a cross", "crosses", True),
        ("place", "what is left of the square?", "a circle", "a circle is left of the square", True),
        ("place", "what is left of the square?", "a circle", "the square", False),
        ("present", "is there a red circle?", "yes", "Yes, there is.", True),
        ("present", "is there a red circle?", "no", "Yes, no", False),
        ("present", "is there a red circle?", "no", "nothing", False),
        ("describe", "What is in the picture?", "red circle top left.", "Red circle  top left.", True),
        ("describe", "What is in the picture?", "red circle top left.", "red circle top right.", False),
        ("color", "what color is the square?", "red", "", False),
    ],
)
def test_what_counts_as_an_answer(kind, text, answer, said, expected):
    assert right(Question(kind, text, answer, False), said) is expected


@pytest.mark.parametrize("kind", KINDS)
def test_a_right_answer_is_right(kind):
    rng = np.random.default_rng(1)
    for held_out in (False, True):
        question, _ = questions.draw(rng, kind, held_out)
        assert question.held_out == held_out and right(question, question.answer)


def held_out(scene, kind, text):
    rng = np.random.default_rng(0)
    found = {question.held_out for _ in range(400) if (question := questions.ask(rng, scene, kind)).text == text}
    (only,) = found
    return only


def test_held_out_is_what_question_and_answer_name():
    triangles = Scene(tuple(Item("triangle", "green", x, 0.5, 0.28) for x in (0.2, 0.5, 0.8)))
    assert held_out(triangles, "count", "how many triangles are there?")
    assert not held_out(SCENE, "count", "how many circles are there?")
    assert held_out(SCENE, "color", "what color is the triangle?")  # red
    assert not held_out(SCENE, "color", "what color is the circle?")
    assert held_out(SCENE, "present", "is there a red triangle?")
    assert not held_out(SCENE, "present", "is there a red circle?")


def test_held_out_places():
    above = Scene((Item("circle", "red", 0.5, 0.2, 0.28), Item("triangle", "green", 0.5, 0.8, 0.28)))
    placed = [question for n in range(200) if (question := questions.ask(np.random.default_rng(n), above, "place"))]
    assert {question.text for question in placed} >= {"what is over the triangle?", "what is below the circle?"}
    assert all(question.held_out for question in placed)  # a circle above a triangle, said from either side
    pair = Scene((Item("circle", "red", 0.2, 0.5, 0.28), Item("cross", "green", 0.8, 0.5, 0.28)))
    asked = [questions.ask(np.random.default_rng(n), pair, "place") for n in range(50)]
    assert any(asked) and all(question.held_out for question in asked if question)  # never named together
    beside = Scene((Item("circle", "red", 0.2, 0.5, 0.28), Item("triangle", "green", 0.8, 0.5, 0.28)))
    asked = [questions.ask(np.random.default_rng(n), beside, "place") for n in range(50)]
    assert any(asked) and not any(question.held_out for question in asked if question)


def test_yes_and_no_are_about_as_frequent():
    rng = np.random.default_rng(0)
    for side in (False, True):
        answers = collections.Counter(questions.draw(rng, "present", side)[0].answer for _ in range(300))
        assert 100 < answers["yes"] < 200, answers

"""P(yes) at a chat endpoint: hand values, what is asked, and answers without it."""

import base64
import io
import json
import math

import httpx
import numpy as np
import pytest
from PIL import Image
from stub_endpoint import ask_chat, completion, picture, question_of, said, served

from janus_jax.rewards import chat_endpoint, endpoint
from janus_jax.sequences.request import Request

# P(yes)


@pytest.mark.parametrize(
    "tops, expected",
    [
        ([("Yes", 0.6), ("No", 0.2), ("Maybe", 0.2)], 0.75),
        ([("yes", 0.4), (" Yes", 0.1), ("YES", 0.1), ("▁yes", 0.1), ("ĠNo", 0.2), ("nO", 0.1)], 0.7),
        ([("Yes", 0.3), ("Yes", 0.3), ("no", 0.2)], 0.75),  # two ids of one spelling
        ([("yes", 0.06)], 1.0),
        ([("no", 0.9), ("not", 0.1)], 0.0),  # "not" is another word
        ([("No", 0.5), ("yesterday", 0.3), ("Yes", 0.1)], 1 / 6),
    ],
)
def test_p_yes_by_hand(tops, expected):
    assert chat_endpoint.p_yes(completion(*tops)) == pytest.approx(expected)


@pytest.mark.parametrize(
    "answer, words",
    [
        ({"choices": [{"message": {"content": "Yes"}}]}, "no logprobs"),
        ({"choices": [{"logprobs": None}]}, "no logprobs"),
        ({"choices": [{"logprobs": {"content": []}}]}, "no logprobs"),
        (
            {"choices": [{"logprobs": {"content": [{"token": "Yes", "logprob": 0.0, "top_logprobs": []}]}}]},
            "no logprobs",
        ),
        (completion(("The", 0.9), ("A", 0.1)), "yes and no have 0 of"),
        (completion(("The", 0.9), ("No", 0.04)), "yes and no have 0.04 of"),
        (completion(("Yes", 2.0)), "logprob of 'Yes'"),
        (completion(("Yes", math.nan)), "logprob of 'Yes'"),
    ],
)
def test_without_p_yes(answer, words):
    with pytest.raises(ValueError, match=words):
        chat_endpoint.p_yes(answer)
    judged = ask_chat(lambda request: httpx.Response(200, text=json.dumps(answer)))
    assert np.isnan(judged["match"]).all() and judged.first_error.startswith(endpoint.UNUSABLE)
    assert words in judged.first_error


def test_what_the_chat_endpoint_is_asked():
    requests = []

    def answer(request):
        requests.append(request)
        return httpx.Response(200, json=said(0.25))

    judge = chat_endpoint.make_judge(served(answer, headers={"Authorization": "Bearer k"}), "judge-8b")
    judged = judge([Request("a red circle")], [picture(70)])
    np.testing.assert_allclose(judged["match"], [0.25])
    assert judged["match"].dtype == np.float32 and judged.missing == 0 and judged.errors == ("",)
    (request,) = requests
    asked = json.loads(request.content)
    assert (asked["model"], asked["max_tokens"], asked["logprobs"], asked["top_logprobs"]) == ("judge-8b", 1, True, 20)
    image, question = asked["messages"][0]["content"]
    sent = base64.b64decode(image["image_url"]["url"].removeprefix("data:image/png;base64,"))
    assert np.asarray(Image.open(io.BytesIO(sent))).tolist() == np.asarray(picture(70)).tolist()
    assert '"a red circle"' in question["text"]
    assert request.headers["Authorization"] == "Bearer k"


def test_questions_are_averaged_and_stand_or_fall_together():
    odds = {"q1": 1.0, "q2": 0.5, "q3": 0.0}

    def answer(request):
        question = question_of(request).split("\n")[0]
        if question == "broken":
            return httpx.Response(200, json={})
        return httpx.Response(200, json=completion(("Yes", odds[question] + 1e-12), ("No", 1 - odds[question] + 1e-12)))

    def questions(prompt):
        return prompt.split()

    judged = ask_chat(answer, ["q1", "q1 q2 q3", "q1 broken q2", "q1 q2"], questions)
    np.testing.assert_allclose(judged["match"], [1, 0.5, np.nan, 0.75], atol=1e-6)
    assert [bool(error) for error in judged.errors] == [False, False, True, False]
    assert judged.valid.tolist() == [True, True, False, True] and judged.missing == 1
    assert ask_chat(answer, [])["match"].shape == (0,)


# how servers write a token


def entry(token, p, data=None):
    return {"token": token, "logprob": math.log(p), "bytes": data}


def first_token(*entries, **choice):
    return {"choices": [{"logprobs": {"content": [{**entries[0], "top_logprobs": list(entries)}]}, **choice}]}


@pytest.mark.parametrize(
    "yes",
    [
        *("yes.", '"Yes', "'yes'", "\u201cYes\u201d", "**Yes**", "Yes,", " YES!", "\u010aYes", "`yes`"),
        *("<0x59><0x65><0x73>", "<0x20>Yes", r"bytes:\x59es", r"bytes:\x20\x79\x65\x73", "Yes<0x0A>"),
    ],
)
def test_marks_and_bytes_around_the_word(yes):
    assert chat_endpoint.p_yes(first_token(entry(yes, 0.6), entry("No", 0.2))) == pytest.approx(0.75)
    other = first_token(entry("No.", 0.3), entry(yes + "terday", 0.6))
    assert chat_endpoint.p_yes(other) == 0


def test_the_bytes_count_where_a_server_says_them():
    answer = first_token(entry("token_id:9642", 0.6, list(b"Yes")), entry("token_id:2822", 0.2, list(b" no")))
    assert chat_endpoint.p_yes(answer) == pytest.approx(0.75)
    for broken in (7, 10**12, ["Y"], [3000]):
        judged = ask_chat(lambda request, b=broken: httpx.Response(200, json=first_token(entry("Maybe", 0.6, b))))
        assert judged.missing == 1


@pytest.mark.parametrize("token", ["<think>", " <think>\n", "<", "<|channel|>", "[THINK]", "\u25c1think\u25b7"])
def test_who_thinks_first_has_not_answered(token):
    """Not even by what the mass of its thinking leaves to yes and no."""
    with pytest.raises(ValueError, match="thinks first .*extra_body.*enable_thinking"):
        chat_endpoint.p_yes(first_token(entry(token, 0.8), entry("Yes", 0.1), entry("No", 0.1)))
    likelier = first_token(entry(token, 0.2), entry("Yes", 0.6), entry("No", 0.2))
    assert chat_endpoint.p_yes(likelier) == pytest.approx(0.75)
    apart = first_token(entry("Yes", 0.9), message={"content": "", "reasoning_content": "Yes"})
    with pytest.raises(ValueError, match="thinks first"):
        chat_endpoint.p_yes(apart)
    said = ask_chat(lambda request: httpx.Response(200, json=first_token(entry(token, 0.9)))).first_error
    assert said.endswith('{"chat_template_kwargs": {"enable_thinking": False}}')  # not cut off


@pytest.mark.parametrize("choice", [{"finish_reason": "content_filter"}, {"message": {"refusal": "I cannot look."}}])
def test_a_filter_is_no_lack_of_logprobs(choice):
    with pytest.raises(ValueError, match="^content filter: the server withholds its answer"):
        chat_endpoint.p_yes({"choices": [{"logprobs": None, **choice}]})


def test_settings_of_the_request():
    requests = []

    def answer(request):
        requests.append(json.loads(request.content))
        return httpx.Response(200, json=said(0.25))

    extra = {"chat_template_kwargs": {"enable_thinking": False}, "temperature": 0.5}
    judge = chat_endpoint.make_judge(
        served(answer), "m", top_logprobs=5, limit_name="max_completion_tokens", extra_body=extra
    )
    np.testing.assert_allclose(judge([Request("a")], [picture()])["match"], [0.25])
    (asked,) = requests
    assert asked["top_logprobs"] == 5 and asked["max_completion_tokens"] == 1 and "max_tokens" not in asked
    assert asked["chat_template_kwargs"] == {"enable_thinking": False} and asked["temperature"] == 0.5


def test_edits_are_asked_about_with_both_pictures():
    source, asked = picture(9), []

    def answer(request):
        *shown, question = json.loads(request.content)["messages"][0]["content"]
        sent = [base64.b64decode(part["image_url"]["url"].partition(",")[2]) for part in shown]
        shades = [Image.open(io.BytesIO(data)).getpixel((0, 0))[0] for data in sent]
        asked.append((shades, question["text"]))
        if shades[1] == 50 and "unchanged" in question["text"]:
            return httpx.Response(400, text="no")
        return httpx.Response(200, json=said(shades[1] / 100 if "follow" in question["text"] else 0.5))

    judge = chat_endpoint.make_judge(served(answer), "m")
    judged = judge([Request("make it red", source)] * 2, [picture(25), picture(50)])
    np.testing.assert_allclose(judged["following"], [0.25, 0.5])
    np.testing.assert_allclose(judged["preserving"], [0.5, math.nan])
    assert list(judged) == ["following", "preserving"] and judged.errors == ("", "HTTP 400: no")
    assert sorted(shades for shades, _ in asked) == [[9, 25]] * 2 + [[9, 50]] * 2
    assert all('"make it red"' in text and text.endswith(chat_endpoint.ANSWER) for _, text in asked)

"""What the judge relies on in a vLLM that sees, asked of a real one (0.32.0, Qwen2.5-VL, random).

Measured, and what it means for us:

- Several tokens may begin a choice ("Yes" and "Y"): its probability is the sum over them all.
- Probabilities are after the choices' mask and before the temperature: those of the tokens that
  may come make 1 together, at every temperature; all others are exp(-9999).
- The MIME type of a data URL is not looked at; a picture that is none is a 400 that says so.
- Sides of more than 200 to 1 are refused.
- JSON texts may hold control characters that JSON forbids: the grammar lets them through.
- structured_outputs.disable_any_whitespace of a request is ignored: only the server's own setting
  holds, so a client has to see floods of white space itself.
"""

from __future__ import annotations

import base64
import io
import json
import math
from typing import Any

import pytest
from PIL import Image, ImageDraw

from tests.support.vllm import VllmServer

CHOICES = ["Yes", "No"]
SCHEMA = {
    "type": "object",
    "properties": {
        "seen": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 3},
        "who": {"type": "string", "enum": ["luca", "giulia", "none"]},
    },
    "required": ["seen", "who"],
    "additionalProperties": False,
}


def picture(colour: str, size: tuple[int, int] = (1024, 1024), kind: str = "PNG") -> bytes:
    image = Image.new("RGB", size, "white")
    width, height = size
    box = (width // 4, height // 4, width // 2, height // 2)
    ImageDraw.Draw(image).ellipse(box, fill=colour)
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def asked(text: str, *pictures: bytes, kind: str = "png") -> list[dict[str, Any]]:
    urls = (f"data:image/{kind};base64,{base64.b64encode(data).decode()}" for data in pictures)
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def ask(server: VllmServer, messages: list[dict[str, Any]], **settings: Any) -> tuple[int, Any]:
    body = {"model": server.model, "messages": messages, "max_tokens": 8, **settings}
    return server.ask("POST", "/v1/chat/completions", body)


def answer(server: VllmServer, messages: list[dict[str, Any]], **settings: Any) -> dict[str, Any]:
    status, body = ask(server, messages, **settings)
    assert status == 200, body
    return dict(body)


def chosen(
    server: VllmServer,
    messages: list[dict[str, Any]],
    choices: list[str] = CHOICES,
    temperature: float = 0.0,
) -> tuple[str, dict[str, float]]:
    """The word it says, and the probability of each, as OpenAI's API gives them."""
    body = answer(
        server,
        messages,
        temperature=temperature,
        logprobs=True,
        top_logprobs=20,
        structured_outputs={"choice": choices},
    )
    (choice,) = body["choices"]
    assert choice["finish_reason"] == "stop"
    first = choice["logprobs"]["content"][0]["top_logprobs"]
    probabilities = {
        word: sum(
            math.exp(one["logprob"])
            for one in first
            if one["token"] and word.startswith(one["token"])
        )
        for word in choices
    }
    return str(choice["message"]["content"]), probabilities


def test_a_question_about_a_picture(vision_vllm):
    word, probabilities = chosen(vision_vllm, asked("Is the ball red?", picture("red")))
    assert word in CHOICES
    assert sum(probabilities.values()) == pytest.approx(1.0, abs=1e-4)
    assert all(0.0 < one < 1.0 for one in probabilities.values())

    for temperature in (1.0, 2.0):
        _, others = chosen(
            vision_vllm, asked("Is the ball red?", picture("red")), temperature=temperature
        )
        assert others == pytest.approx(probabilities, abs=1e-4)


def test_it_looks_at_the_picture_and_reads_the_question(vision_vllm):
    found = [
        chosen(vision_vllm, asked(text, picture(colour)))[1]["Yes"]
        for text, colour in [
            ("Is the ball red?", "red"),
            ("Is the ball red?", "blue"),
            ("Is a boy in the picture?", "red"),
        ]
    ]
    assert len({round(one, 4) for one in found}) == 3, found


def test_two_pictures_in_both_orders(vision_vllm):
    red, blue = picture("red"), picture("blue", (832, 1216), "JPEG")
    text = "Which picture shows the plan better, A or B?"
    one = chosen(vision_vllm, asked(text, red, blue), ["A", "B"])[1]
    other = chosen(vision_vllm, asked(text, blue, red), ["A", "B"])[1]
    assert one["A"] != pytest.approx(other["A"], abs=1e-4)


@pytest.mark.parametrize(("size", "tokens"), [((1024, 1024), 64), ((1216, 832), 54), ((8, 8), 4)])
def test_a_picture_is_few_tokens(vision_vllm, size, tokens):
    text = asked("Is it red?")
    without = answer(vision_vllm, text)["usage"]["prompt_tokens"]
    body = answer(vision_vllm, asked("Is it red?", picture("red", size)))
    # Beside a mark at its beginning and at its end.
    assert body["usage"]["prompt_tokens"] - without == tokens + 2


def test_a_schema_holds_beside_a_picture(vision_vllm):
    for seed in range(8):
        body = answer(
            vision_vllm,
            asked("What is there?", picture("green", (320, 240))),
            max_tokens=400,
            temperature=1.0,
            seed=seed,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "seen", "schema": SCHEMA, "strict": True},
            },
        )
        (choice,) = body["choices"]
        assert choice["finish_reason"] == "stop"
        said = json.loads(choice["message"]["content"], strict=False)
        assert list(said) == ["seen", "who"]
        assert said["who"] in SCHEMA["properties"]["who"]["enum"]
        assert len(said["seen"]) <= 3
        assert all(len(text) <= 12 for text in said["seen"])


def test_white_space_is_the_servers_choice(vision_vllm):
    """Whose own setting forbids it here."""
    for asked_for in (False, True):
        body = answer(
            vision_vllm,
            asked("What is there?"),
            max_tokens=400,
            temperature=1.0,
            seed=1,
            structured_outputs={"json": SCHEMA, "disable_any_whitespace": asked_for},
        )
        text = body["choices"][0]["message"]["content"]
        said = json.loads(text, strict=False)
        assert json.dumps(said, separators=(",", ":"), ensure_ascii=False) == text


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (picture("red")[:700], "Failed to load image: image file is truncated"),
        (b"no picture", "Failed to load image: cannot identify image file"),
        (picture("red", (500, 2)), "Failed to apply Qwen2_5_VLProcessor"),
    ],
)
def test_what_is_no_picture_is_refused(vision_vllm, data, said):
    status, body = ask(vision_vllm, asked("Is it red?", data))
    assert status == 400
    assert said in body["error"]["message"]


def test_too_many_pictures_are_refused(vision_vllm):
    status, body = ask(vision_vllm, asked("Which one?", *[picture("red", (64, 64))] * 5))
    assert status == 400
    assert body["error"]["message"].startswith("At most 4 image(s)")


def test_a_model_without_eyes_refuses_a_picture(vllm):
    status, body = ask(vllm, asked("Is it red?", picture("red", (64, 64))))
    assert status == 400
    assert body["error"]["message"] == "tiny is not a multimodal model"

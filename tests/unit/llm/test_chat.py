"""One request to a chat server, all goes well: what is sent and what is heard."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from animation_studio.errors import ServiceError
from animation_studio.llm import hearing as hearing_module
from animation_studio.llm.messages import ChatRequest, Message
from animation_studio.llm.pictures import encoded
from tests.support.chats import PNG, SCHEMA, ask, client_at, client_of, request, run
from tests.support.standin_kinds import KINDS
from tests.support.standin_parts import Answer
from tests.support.standin_service import StandIn

CHAT = "POST /v1/chat/completions"
LLMS = [kind for kind in KINDS if kind != "gpt_sovits"]


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn("vllm") as standin:
        yield standin


def bodies(server: StandIn) -> list[Any]:
    return [one.body for one in server.log if one.route == CHAT]


def test_importing_it_loads_no_http_package() -> None:
    program = "import sys, animation_studio.llm.chat; print('aiohttp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


# What is sent


@pytest.mark.parametrize("kind", LLMS)
def test_a_plain_question(kind: str) -> None:
    with StandIn(kind, says=["Hello yourself."]) as server:
        answer = ask(client_of(server))
    assert answer.text == "Hello yourself."
    assert answer.model == "tiny"
    assert answer.completion_tokens == 5
    assert answer.prompt_tokens == 2
    assert answer.retries == 0
    assert answer.seconds > 0


def test_the_body_of_a_request(server: StandIn) -> None:
    messages = [Message("system", "Be short."), Message("user", "Hello")]
    run(client_of(server).ask(ChatRequest(messages, 70, temperature=0.5, seed=2**63 - 1)))
    (body,) = bodies(server)
    assert body.pop("stream_options")["include_usage"] is True
    assert body == {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Hello"},
        ],
        "max_tokens": 70,
        "temperature": 0.5,
        "seed": 2**63 - 1,
        "stream": True,
    }


def test_without_a_seed_none_is_sent(server: StandIn) -> None:
    ask(client_of(server))
    assert "seed" not in bodies(server)[0]


def test_pictures_stand_before_the_text_as_data_urls(server: StandIn) -> None:
    jpeg = b"\xff\xd8\xff\xe0 and so on"
    ask(client_of(server), "What is it?", pictures=[PNG, jpeg])
    first, second, text = bodies(server)[0]["messages"][0]["content"]
    for part, kind, picture in ((first, "png", PNG), (second, "jpeg", jpeg)):
        url = part["image_url"]["url"]
        assert part["type"] == "image_url"
        assert url.startswith(f"data:image/{kind};base64,")
        assert base64.b64decode(url.partition(",")[2]) == picture
    assert text == {"type": "text", "text": "What is it?"}


def test_a_picture_of_megabytes_is_sent_without_a_warning(server: StandIn) -> None:
    """aiohttp warns of large bodies, and warnings are errors here."""
    ask(client_of(server), pictures=[PNG + bytes(3 << 20)])
    assert len(bodies(server)) == 1


@pytest.mark.parametrize("picture", [b"", b"GIF89a", b"RIFF....WEBP"])
def test_other_pictures_are_not_sent(server: StandIn, picture: bytes) -> None:
    with pytest.raises(ServiceError, match="is no PNG and no JPEG"):
        ask(client_of(server), pictures=[PNG, picture])
    assert not server.requests


def test_a_service_that_is_said_to_be_blind_is_not_asked(server: StandIn) -> None:
    with pytest.raises(ServiceError, match="does not see pictures"):
        ask(client_of(server, vision=False), pictures=[PNG])
    assert not server.requests


def test_the_model_of_the_configuration_is_asked(server: StandIn) -> None:
    server.model.name = "large"
    client = client_of(server, model="large")
    assert run(client.model()) == "large"
    assert ask(client).model == "large"
    assert not server.requests["GET /v1/models"]


def test_the_first_model_that_is_offered_is_asked(server: StandIn) -> None:
    client = client_of(server)
    assert run(client.model()) == "tiny"
    assert ask(client).model == "tiny"
    assert server.requests["GET /v1/models"] == 1


def test_a_model_that_was_swapped_is_found_again(server: StandIn) -> None:
    client = client_of(server)
    ask(client)
    server.model.name = "other"
    with pytest.raises(ServiceError, match="it offers other"):
        ask(client)
    assert ask(client).model == "other"


@pytest.mark.parametrize("text", ['{"data": []}', "{}", '{"data": [{"name": 4}]}'])
def test_a_server_without_a_model_says_so(server: StandIn, text: str) -> None:
    server.fault("GET /v1/models", status=200, text=text)
    with pytest.raises(ServiceError, match=r"asked for its models and offers no model\. Load"):
        ask(client_of(server))


def test_a_server_that_does_not_list_its_models_is_named_with_its_time(server: StandIn) -> None:
    server.fault("GET /v1/models", hang=True)
    with pytest.raises(ServiceError, match=r"asked for its models and gave no answer within 0\.2"):
        run(client_of(server, timeouts={"answer": 0.2}).model())


def test_the_key_is_sent(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WRITER_KEY", "sk-1234")
    server.model.api_key = "sk-1234"
    assert ask(client_of(server, api_key_env="WRITER_KEY")).text


# What is heard


@pytest.mark.parametrize("setting", [{"chunk_tokens": 7}, {"chunk_bytes": 1}, {"chunk_bytes": 37}])
def test_however_the_stream_is_cut_the_text_is_the_same(
    server: StandIn, setting: dict[str, int]
) -> None:
    text = "Ciao, Luca! 你好 — naïve 🏖️ «sì»\nnew line"
    server.steer({"model": {"says": [text], **setting}})
    assert ask(client_of(server)).text == text


@pytest.mark.parametrize("kind", LLMS)
def test_a_server_that_does_not_stream_is_understood(kind: str) -> None:
    with StandIn(kind, streams=False, says=["All at once."]) as server:
        answer = ask(client_of(server))
    assert answer.text == "All at once."
    assert answer.completion_tokens == 6


def test_a_server_that_does_not_count(server: StandIn) -> None:
    server.steer({"model": {"counts": False, "says": ["one two three"]}})
    counts: list[int] = []
    answer = run(client_of(server).ask(request(), counts.append))
    assert answer.completion_tokens is None
    assert answer.prompt_tokens is None
    assert counts[-1] == 5


def test_tokens_are_told_seldom_and_at_the_end(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.model.says = ["word " * 40] * 2
    counts: list[int] = []
    run(client_of(server).ask(request(), counts.append))
    assert counts[-1] == 80
    assert len(counts) <= 10
    assert counts == sorted(set(counts))
    monkeypatch.setattr(hearing_module, "_REPORT", 0.0)
    every: list[int] = []
    run(client_of(server).ask(request(), every.append))
    assert every == list(range(1, 81))


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", ""])
@pytest.mark.parametrize("streams", [True, False])
def test_reasoning_is_counted_and_is_no_part_of_the_answer(
    server: StandIn, field: str, streams: bool
) -> None:
    server.steer({"model": {"reasoning": "First I think.", "reasoning_field": field}})
    server.steer({"model": {"streams": streams, "says": ["Done."]}})
    counts: list[int] = []
    answer = run(client_of(server).ask(request(), counts.append))
    assert answer.text == "Done."
    assert counts[-1] == answer.completion_tokens > 6


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>a</think>b", "b"),
        ("\n<think>\na\n</think>\n\n b \n", "b"),
        ("a thought that the template began</think>\nb", "b"),
        ('{"text": "</think>"}', '{"text": "</think>"}'),
        ("a <think> in the middle", "a <think> in the middle"),
    ],
)
def test_a_thought_before_the_answer_is_left_out(server: StandIn, text: str, answer: str) -> None:
    server.model.says = [text]
    assert ask(client_of(server)).text == answer


def raw(*events: str, end: str = "\n\n") -> Callable[[Any], Answer]:
    """Say these events, whatever is asked."""
    return lambda _: Answer(200, events=iter([f"{event}{end}".encode() for event in events]))


def choice(text: str, finish: str | None = None) -> str:
    data = {"choices": [{"delta": {"content": text}, "finish_reason": finish}]}
    return json.dumps(data)


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\r\r"])
def test_streams_of_other_makes(server: StandIn, end: str) -> None:
    """Comments, no space, names of events, several lines, no [DONE], no last empty line."""
    line = end[: len(end) // 2]
    halves = choice(" there").partition(", ")
    server.model.says = raw(
        ": keep-alive",
        f"event: message{line}data:{choice('Hello')}",
        f"id: 7{line}data: {halves[0]},{line}data: {halves[2]}",
        f"data:{choice('.', 'stop')}",
        end=end,
    )
    assert ask(client_of(server)).text == "Hello there."


def test_what_comes_after_the_end_is_not_heard(server: StandIn) -> None:
    server.model.says = raw(
        f"data: {choice('Yes', 'stop')}", "data: [DONE]", f"data: {choice(' No')}"
    )
    assert ask(client_of(server)).text == "Yes"


def test_a_connection_that_breaks_after_the_last_word_loses_nothing(server: StandIn) -> None:
    def says(_: Any) -> Answer:
        return Answer(200, events=iter([f"data: {choice('Yes', 'stop')}\n\n".encode(), None]))

    server.model.says = says
    assert ask(client_of(server)).text == "Yes"


def test_an_event_of_a_wrong_content_type_is_understood() -> None:
    async def check() -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n")
            writer.write(f"data: {choice('Well.', 'stop')}\n\n".encode())
            writer.close()
            await writer.wait_closed()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            client = client_at(f"http://127.0.0.1:{port}", model="tiny")
            return (await client.ask(request())).text

    assert run(check()) == "Well."


# Pictures


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((832, 1216), (1024, 701)),
        ((2048, 1024), (512, 1024)),
        ((600, 800), (800, 600)),
        ((3000, 2), (1, 1024)),
    ],
)
def test_a_picture_is_made_no_longer_than_models_look_at(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    picture = np.full((*shape, 3), (10, 200, 30), np.uint8)
    with Image.open(io.BytesIO(encoded(picture))) as image:
        assert image.format == "PNG"
        assert image.mode == "RGB"
        assert image.size == size
        assert np.asarray(image)[0, 0].tolist() == [10, 200, 30]


def test_a_picture_that_is_small_enough_is_sent_as_it_is() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)
    with Image.open(io.BytesIO(encoded(picture))) as image:
        assert np.array_equal(np.asarray(image), picture)


def test_the_schema_of_the_tests_is_answered_by_the_stand_in(server: StandIn) -> None:
    answer = ask(client_of(server), schema=SCHEMA)
    assert set(json.loads(answer.text)) == {"action", "mood", "lines"}

"""What the pack relies on in vLLM, asked of a real one (0.32.0, on the processor).

Measured, and what it means for us:

- /is_sleeping says true as soon as the scheduler pauses: with mode=wait long before memory is free.
- A POST /sleep?mode=wait whose client went away is carried out all the same when the last answer
  ends, also after a wake that came meanwhile; then the engine has put its memory away, says that it
  sleeps, and answers requests. A second POST /sleep with mode=abort brings the first to its end.
- A second /sleep answers 200 and does nothing, whatever its level; /metrics then tells the level of
  the second. A wake of one that is awake is no error either, nor is an unknown tag.
- /wake_up?tags=weights leaves it asleep; every step of waking from level 2 may be repeated.
- A request sent while asleep hangs, and is answered after the wake; one whose client went away is
  forgotten. /health and /v1 without work stay 200.
Those of servers of their own are asked in test_vllm_states.py:

- The API key guards /v1 and not the sleep routes.
- With a stopped engine process /health is 200 still and /is_sleeping hangs; with a dead one they
  are 503 and 500, and the server ends by itself within seconds.
- When the server is killed its engine process stays, minutes at least, with all its memory; after
  SIGTERM it ends within ten seconds.
- --enable-sleep-mode keeps it from starting on a processor, where sleeping frees nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.vllm import VllmServer

LONG = 800  # tokens: 4 s


@pytest.fixture(autouse=True)
def awake(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave the shared server awake."""
    yield
    if "vllm" in request.fixturenames:
        request.getfixturevalue("vllm").wake()


@pytest.fixture
def meanwhile() -> Iterator[Callable[..., Future[Any]]]:
    """Do something in a thread; its result is waited for at the end."""
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit


def answering(vllm: VllmServer, meanwhile: Callable[..., Future[Any]]) -> Future[Any]:
    """Begin a long answer and return when the engine is at work on it."""
    answer = meanwhile(vllm.chat, LONG)
    until(lambda: running(vllm) == 1)
    return answer


def running(vllm: VllmServer) -> int:
    _, metrics = vllm.ask("GET", "/metrics")
    (line,) = (row for row in metrics.splitlines() if row.startswith("vllm:num_requests_running{"))
    return int(float(line.split()[-1]))


def until(ready: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.02)


def ok(answer: tuple[int, Any]) -> Any:
    status, body = answer
    assert status == 200, body
    return body


def end_of(answer: dict[str, Any]) -> tuple[str, int]:
    return answer["choices"][0]["finish_reason"], answer["usage"]["completion_tokens"]


def level_told(vllm: VllmServer) -> list[str]:
    _, metrics = vllm.ask("GET", "/metrics")
    rows = [row for row in metrics.splitlines() if row.startswith("vllm:engine_sleep_state{")]
    return [row.split('sleep_state="')[1].split('"')[0] for row in rows if row.endswith(" 1.0")]


def test_level_1(vllm):
    assert ok(vllm.ask("GET", "/is_sleeping")) == {"is_sleeping": False}
    ok(vllm.ask("POST", "/sleep?level=1"))
    assert vllm.is_sleeping()
    assert level_told(vllm) == ["weights_offloaded"]
    ok(vllm.ask("POST", "/wake_up"))
    assert not vllm.is_sleeping()
    assert level_told(vllm) == ["awake"]
    assert end_of(vllm.chat(3)) == ("length", 3)


def test_level_2_and_the_way_back(vllm):
    before = vllm.chat(16, temperature=0)["choices"][0]["message"]["content"]
    ok(vllm.ask("POST", "/sleep?level=2"))
    assert level_told(vllm) == ["discard_all"]
    for _ in range(2):  # each step may be repeated
        assert ok(vllm.ask("POST", "/wake_up?tags=weights"))["status"] == "sleeping"
        assert vllm.is_sleeping()
        ok(vllm.ask("POST", "/collective_rpc", {"method": "reload_weights"}))
    for _ in range(2):
        ok(vllm.ask("POST", "/wake_up?tags=kv_cache"))
        assert not vllm.is_sleeping()
        ok(vllm.ask("POST", "/reset_prefix_cache"))
    assert vllm.chat(16, temperature=0)["choices"][0]["message"]["content"] == before


def test_what_is_done_already_is_no_error(vllm):
    ok(vllm.ask("POST", "/wake_up"))
    ok(vllm.ask("POST", "/wake_up?tags=kv_cache"))
    ok(vllm.ask("POST", "/sleep?level=1"))
    ok(vllm.ask("POST", "/sleep?level=2"))
    # It slept already and did nothing; what it tells is what it was asked last.
    assert level_told(vllm) == ["discard_all"]
    ok(vllm.ask("POST", "/wake_up?tags=nonsense"))
    assert vllm.is_sleeping()


def test_a_body_is_no_query(vllm):
    assert ok(vllm.ask("POST", "/sleep", {"level": 2}))["level"] == 1
    assert level_told(vllm) == ["weights_offloaded"]


@pytest.mark.parametrize("query", ["level=7", "level=deep", "level=1&mode=gently"])
def test_what_it_does_not_know_is_refused(vllm, query):
    status, _ = vllm.ask("POST", f"/sleep?{query}")
    assert status == 400
    assert not vllm.is_sleeping()


def test_a_request_while_asleep_hangs_and_is_answered_after_the_wake(vllm, meanwhile):
    ok(vllm.ask("POST", "/sleep?level=1"))
    with pytest.raises(TimeoutError):
        vllm.chat(1, timeout=1.0)
    answer = meanwhile(vllm.chat, 2)
    assert vllm.ask("GET", "/health")[0] == 200
    assert vllm.ask("GET", "/v1/models")[0] == 200
    assert not answer.done()
    ok(vllm.ask("POST", "/wake_up"))
    assert end_of(answer.result(20)) == ("length", 2)
    # The one whose client went away is not worked on.
    assert running(vllm) == 0


def test_abort_cuts_the_answer(vllm, meanwhile):
    answer = answering(vllm, meanwhile)
    ok(vllm.ask("POST", "/sleep?level=1&mode=abort"))
    reason, tokens = end_of(answer.result(5))
    assert reason == "abort"
    assert tokens < LONG


def test_abort_is_what_it_does_unasked(vllm, meanwhile):
    answer = answering(vllm, meanwhile)
    ok(vllm.ask("POST", "/sleep?level=1"))
    assert end_of(answer.result(5))[0] == "abort"


def test_wait_lets_the_answer_end_and_says_asleep_meanwhile(vllm, meanwhile):
    answer = answering(vllm, meanwhile)
    slept = meanwhile(vllm.ask, "POST", "/sleep?level=1&mode=wait")
    until(vllm.is_sleeping)
    assert not answer.done()
    assert not slept.done()
    ok(slept.result(20))
    assert end_of(answer.result(1)) == ("length", LONG)


def test_keep_freezes_the_answer(vllm, meanwhile):
    answer = answering(vllm, meanwhile)
    ok(vllm.ask("POST", "/sleep?level=1&mode=keep"))
    time.sleep(1.0)
    assert not answer.done()
    ok(vllm.ask("POST", "/wake_up"))
    assert end_of(answer.result(20)) == ("length", LONG)


def test_a_forgotten_wait_comes_true_after_a_wake(vllm, meanwhile):
    answer = answering(vllm, meanwhile)
    with pytest.raises(TimeoutError):
        vllm.ask("POST", "/sleep?level=1&mode=wait", timeout=0.5)
    ok(vllm.ask("POST", "/wake_up"))
    assert not vllm.is_sleeping()
    assert end_of(answer.result(20)) == ("length", LONG)
    until(vllm.is_sleeping)
    # It answers with its memory put away: on a GPU noise, or a crash.
    assert end_of(vllm.chat(1)) == ("length", 1)
    ok(vllm.ask("POST", "/wake_up"))
    assert not vllm.is_sleeping()


def test_abort_ends_a_forgotten_wait(vllm, meanwhile):
    answer = answering(vllm, meanwhile)
    with pytest.raises(TimeoutError):
        vllm.ask("POST", "/sleep?level=1&mode=wait", timeout=0.5)
    ok(vllm.ask("POST", "/sleep?level=1&mode=abort"))
    assert end_of(answer.result(5))[0] == "abort"
    ok(vllm.ask("POST", "/wake_up"))
    time.sleep(1.0)
    assert not vllm.is_sleeping()

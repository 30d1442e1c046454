"""The client of ComfyUI's HTTP API: runs a prompt, follows it, and gives its files or its error.

    async with ComfyClient("http://127.0.0.1:8188") as client:
        result = await client.run(prompt, workflow=workflow, on_progress=show)

As a command: `python -m animation_studio.runs.client --server URL prompt.json` (see `command`).
Routes and messages are those of ComfyUI 0.3.75 and later.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from ..errors import (
    MissingPackageError,
    PromptFailedError,
    PromptRejectedError,
    RunError,
    ServerUnreachableError,
)
from ..files import read_limited
from .messages import OutputFile, Progress, RunResult, RunState, check_prompt, rejection

if TYPE_CHECKING:
    import aiohttp

__all__ = ["ComfyClient", "OutputFile", "Progress", "RunResult"]

_UPLOAD_LIMIT = 100 << 20  # ComfyUI's own default of --max-upload-size
_MESSAGE_LIMIT = 64 << 20
# How long the socket may be silent before /history is asked: a message can get lost with it.
_QUIET_SECONDS = 5.0
_POLL_SECONDS = 1.0
# What a proxy in front of ComfyUI says while ComfyUI is away.
_GATEWAY_STATUSES = (502, 503, 504)


class ComfyClient:
    """An async context manager around one ComfyUI server.

    `address` is a URL or host:port. `request_timeout` (seconds) bounds every single request, never
    the run. `patience` (seconds) is how long a running prompt's server may stay unreachable before
    the run counts as lost. Several `run` calls at a time are fine.
    """

    def __init__(
        self, address: str, *, request_timeout: float = 30.0, patience: float = 30.0
    ) -> None:
        self.address = _base_url(address)
        self._request_timeout = request_timeout
        self._patience = patience
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> ComfyClient:
        aiohttp = _aiohttp()
        timeout = aiohttp.ClientTimeout(total=self._request_timeout)
        self._http = aiohttp.ClientSession(timeout=timeout)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def run(
        self,
        prompt: Mapping[str, Any],
        *,
        workflow: Mapping[str, Any] | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> RunResult:
        """Run a prompt (API form: node id -> {class_type, inputs}) to its end.

        `workflow` is the page's form of the same graph; saved pictures then carry it, so that
        dropping one on the page opens the graph. Raises PromptRejectedError when ComfyUI takes the
        prompt not at all or only in part, PromptFailedError when a node fails or the run is
        interrupted, ServerUnreachableError when the server is or goes away. When the caller is
        cancelled, the prompt is taken from the queue or interrupted, and no other prompt is.
        """
        check_prompt(prompt)
        run = _Run(self, RunState(str(uuid.uuid4()), prompt), on_progress)
        started = time.monotonic()
        try:
            await run.submit(workflow)
            await run.follow()
        finally:
            await run.close()
        return run.state.result(time.monotonic() - started)

    async def upload_image(self, source: Path | bytes, name: str | None = None) -> str:
        """Put a picture into ComfyUI's input folder and return the name that LoadImage takes.

        `name` is needed for bytes and defaults to a file's own. ComfyUI keeps what is there: other
        content under a taken name gets another name. Raises StudioError for more than 100 MiB.
        """
        aiohttp = _aiohttp()
        if isinstance(source, bytes):
            if not name:
                raise ValueError("a name is needed for a picture given as bytes")
            data = source
        else:
            name = name or source.name
            data = read_limited(source, _UPLOAD_LIMIT, "picture")
        form = aiohttp.FormData()
        form.add_field("image", data, filename=name, content_type="application/octet-stream")
        answer = await self.request("POST", "/upload/image", data=form)
        subfolder = answer.get("subfolder")
        return f"{subfolder}/{answer['name']}" if subfolder else str(answer["name"])

    async def interrupt(self, prompt_id: str | None = None) -> None:
        """Interrupt the prompt if it is the running one; without an id, whatever is running."""
        await self.request("POST", "/interrupt", json={"prompt_id": prompt_id} if prompt_id else {})

    async def object_info(self) -> dict[str, Any]:
        """Return the description of every node class, as ComfyUI gives it."""
        return await self.request("GET", "/object_info")

    async def wait_until_ready(self, timeout: float) -> None:
        """Return once the server answers; raise ServerUnreachableError after `timeout` seconds."""
        end = time.monotonic() + timeout
        while True:
            try:
                await self.request("GET", "/system_stats")
                return
            except ServerUnreachableError:
                if time.monotonic() >= end:
                    raise
            await asyncio.sleep(0.25)

    async def request(
        self,
        method: str,
        path: str,
        *,
        accept: tuple[int, ...] = (200,),
        **body: Any,  # noqa: ANN401
    ) -> dict[str, Any]:
        """Send one request and return the JSON object of its answer, {} for an empty one.

        `body` is aiohttp's `json` or `data`. Raises ServerUnreachableError when nothing answers in
        time, RunError for a status not in `accept` and for an answer that is not ComfyUI's.
        """
        aiohttp = _aiohttp()
        try:
            async with self.session.request(method, self.address + path, **body) as response:
                status, text = response.status, await response.text()
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise self.unreachable(error) from error
        if status in _GATEWAY_STATUSES:
            raise self.unreachable(RunError(f"a gateway answers with status {status}"))
        try:
            answer = json.loads(text) if text.strip() else {}
        except json.JSONDecodeError:
            answer = None
        if status not in accept or not isinstance(answer, dict):
            raise RunError(
                f"{method} {self.address}{path} was answered with status {status} and not as "
                f"ComfyUI does ({' '.join(text[:120].split()) or 'empty'}); is the address right?"
            )
        return answer

    @property
    def session(self) -> aiohttp.ClientSession:
        """The open HTTP session; RuntimeError outside `async with`."""
        if self._http is None:
            raise RuntimeError("use the client as `async with ComfyClient(...) as client`")
        return self._http

    @property
    def patience(self) -> float:
        """Seconds that a running prompt's server may stay unreachable."""
        return self._patience

    def unreachable(self, error: BaseException) -> ServerUnreachableError:
        """Return the error for a request that got no answer."""
        reason = str(error) or type(error).__name__
        return ServerUnreachableError(
            f"ComfyUI does not answer at {self.address} ({reason}); "
            "is it running, and is that its address?"
        )


class _Run:
    """One prompt on its way: its socket, and polling where the socket fails."""

    def __init__(
        self, client: ComfyClient, state: RunState, on_progress: Callable[[Progress], None] | None
    ) -> None:
        self.state = state
        self._client = client
        self._show = on_progress or (lambda progress: None)
        # One client id per run: ComfyUI keeps one socket for each.
        self._client_id = str(uuid.uuid4())
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._queued = False
        self._last_answer = time.monotonic()

    async def submit(self, workflow: Mapping[str, Any] | None) -> None:
        """Connect the socket, then queue the prompt: no message may be missed."""
        self._socket = await self._connect()
        body: dict[str, Any] = {
            "prompt": dict(self.state.prompt),
            "prompt_id": self.state.prompt_id,
            "client_id": self._client_id,
        }
        if workflow is not None:
            body["extra_data"] = {"extra_pnginfo": {"workflow": workflow}}
        self._queued = True  # from here on it may be, even if no answer comes back
        answer = await self._client.request("POST", "/prompt", accept=(200, 400, 500), json=body)
        reason = rejection(answer)
        if reason is not None or "prompt_id" not in answer:
            # Refused in part: the rest must not run. Refused wholly: nothing is there to withdraw.
            self._queued = "prompt_id" in answer
            raise PromptRejectedError(reason or f"ComfyUI refused the prompt: {answer}")
        self.state.prompt_id = str(answer["prompt_id"])
        self._show(Progress(None, None, 0, 0, "queued"))

    async def follow(self) -> None:
        """Return when the prompt has ended; the state says how."""
        while not self.state.finished:
            if self._socket is None:
                await self._do_without_socket()
            else:
                await self._receive(self._socket)
        self._queued = False
        await self._read_history(final=True)

    async def close(self) -> None:
        """Close the socket and withdraw a prompt that has not ended."""
        if self._queued:
            with contextlib.suppress(RunError, asyncio.TimeoutError):
                await asyncio.wait_for(self._withdraw(), timeout=10)
        if self._socket is not None:
            await self._socket.close()

    async def _connect(self) -> aiohttp.ClientWebSocketResponse:
        http = _aiohttp()
        url = f"{self._client.address}/ws?clientId={self._client_id}"

        async def opened() -> aiohttp.ClientWebSocketResponse:
            socket = await self._client.session.ws_connect(url, max_msg_size=_MESSAGE_LIMIT)
            # Generic in newer releases of aiohttp, not in older ones.
            return cast("aiohttp.ClientWebSocketResponse", socket)

        try:
            return await asyncio.wait_for(opened(), timeout=10)
        except (http.ClientError, asyncio.TimeoutError, OSError) as error:
            raise self._client.unreachable(error) from error

    async def _receive(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        aiohttp = _aiohttp()
        try:
            frame = await socket.receive(timeout=_QUIET_SECONDS)
        except asyncio.TimeoutError:
            await self._poll()
            return
        self._last_answer = time.monotonic()
        if frame.type == aiohttp.WSMsgType.TEXT:
            with contextlib.suppress(json.JSONDecodeError):
                message = json.loads(frame.data)
                progress = self.state.feed(message) if isinstance(message, dict) else None
                if progress is not None:
                    self._show(progress)
        elif frame.type != aiohttp.WSMsgType.BINARY:  # previews are binary, and not ours to show
            self._socket = None
            await socket.close()
            self._show(Progress(None, None, 0, 0, "connection lost, asking ComfyUI for the result"))

    async def _do_without_socket(self) -> None:
        """Try to connect again; whether or not that works, ask how the prompt stands."""
        with contextlib.suppress(ServerUnreachableError):
            self._socket = await self._connect()
        await self._poll()
        if self._socket is None and not self.state.finished:
            await asyncio.sleep(_POLL_SECONDS)

    async def _poll(self) -> None:
        """Ask /history and /queue; give up on a server that is away for longer than patience."""
        try:
            known = await self._read_history() or await self._in_queue()
            # It may have ended between the two questions.
            known = known or await self._read_history()
            self._last_answer = time.monotonic()
        except ServerUnreachableError:
            if self._socket is not None:
                await self._socket.close()
                self._socket = None
            if time.monotonic() - self._last_answer > self._client.patience:
                self._queued = False  # nobody is there to withdraw it from
                raise
            await asyncio.sleep(_POLL_SECONDS)
            return
        if not known:
            self._queued = False
            raise PromptFailedError(
                "ComfyUI no longer knows the prompt: it was restarted, or the prompt was deleted "
                "from its queue. Run it again."
            )

    async def _read_history(self, *, final: bool = False) -> bool:
        """Take the prompt's entry of /history, if it is there; `final`: it need not be."""
        path = f"/history/{self.state.prompt_id}"
        try:
            answer = await self._client.request("GET", path)
        except RunError:
            if final:  # the messages told everything that is needed
                return False
            raise
        entry = answer.get(self.state.prompt_id)
        if isinstance(entry, Mapping):
            self.state.settle(entry)
        return isinstance(entry, Mapping)

    async def _in_queue(self) -> bool:
        queue = await self._client.request("GET", "/queue")
        items = [*queue.get("queue_running", []), *queue.get("queue_pending", [])]
        return any(item[1] == self.state.prompt_id for item in items)

    async def _withdraw(self) -> None:
        """Delete the prompt from the queue and interrupt it if it runs; others are left alone."""
        await self._client.request("POST", "/queue", json={"delete": [self.state.prompt_id]})
        await self._client.interrupt(self.state.prompt_id)


def _base_url(address: str) -> str:
    parts = urlsplit(address if "://" in address else f"http://{address}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ServerUnreachableError(
            f"{address!r} is not the address of a server; write it like http://127.0.0.1:8188."
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _aiohttp() -> ModuleType:
    try:
        import aiohttp
    except ImportError:
        raise MissingPackageError(
            "Talking to ComfyUI needs the package aiohttp, which ComfyUI itself installs: "
            "pip install aiohttp"
        ) from None
    return aiohttp


if __name__ == "__main__":
    from .command import main

    raise SystemExit(main())

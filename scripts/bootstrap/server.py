"""A ComfyUI process: started with this pack, waited for, and ended with its starter."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from .home import REPOSITORY
from .models import write_paths
from .processes import clean_environment
from .say import Problem, full_disk

__all__ = [
    "HOST",
    "PACK",
    "Options",
    "Server",
    "free_port",
    "get_json",
    "make_link",
    "require_free_port",
]

HOST = "127.0.0.1"
PACK = "ComfyUI-Animation-Studio"
START_SECONDS = 300.0
STOP_SECONDS = 10.0
TAIL_LINES = 15
# Never through a proxy: the address is this machine.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class Options:
    """How a ComfyUI is started.

    `folder` gets input/, output/, temp/ and user/ and the log. `models` is laid out like ComfyUI's
    models folder. `config` becomes ANIMATION_STUDIO_CONFIG. `only_this_pack` leaves other packs
    out. `pack` is False for a ComfyUI without this pack.
    """

    comfyui: Path
    python: Path
    folder: Path
    port: int
    models: Path | None = None
    config: Path | None = None
    arguments: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    only_this_pack: bool = True
    pack: bool = True


class Server:
    """A ComfyUI process. Use it as a context manager: it is ended on the way out."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.url = f"http://{HOST}:{options.port}"
        self.input = options.folder / "input"
        self.output = options.folder / "output"
        self.user = options.folder / "user"
        self.log_path = options.folder / f"comfyui-{options.port}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, tick: Callable[[str], None] = lambda text: None) -> None:
        """Start ComfyUI and return when it answers. `tick` is called while it is waited for.

        Raises Problem when the port is taken, or ComfyUI or the pack in it fails to start.
        """
        require_free_port(self.options.port)
        self._make_folders()
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                self._command(),
                cwd=self.options.comfyui,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                # Ctrl-C is for the starter, which then ends ComfyUI in order.
                start_new_session=os.name != "nt",
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        try:
            self._wait(tick)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End ComfyUI: by closing its stdin (see attached.py), then by force. Safe to repeat."""
        process = self.process
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        for insist in (process.terminate, process.kill):
            if _ends(process):
                return
            insist()
        process.wait()

    def log(self) -> str:
        """Return all that ComfyUI said so far."""
        try:
            return self.log_path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def _wait(self, tick: Callable[[str], None]) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Problem(self._why_it_died())
            if get_json(f"{self.url}/system_stats", timeout=5.0) is not None:
                self._require_pack()
                return
            tick("waiting for ComfyUI to answer")
            time.sleep(0.2)
        raise Problem(
            f"ComfyUI does not answer at {self.url} after {START_SECONDS:.0f} s. Its last words:\n"
            f"{self._tail()}\nAll of them are in {self.log_path}."
        )

    def _require_pack(self) -> None:
        log = self.log()
        failed = re.search(
            rf"\(IMPORT FAILED\): .*{re.escape(self.pack_name)}\s*$", log, re.MULTILINE
        )
        if self.options.pack and failed:
            raise Problem(
                f"ComfyUI runs, but this pack failed to load in it:\n{_words_about_packs(log)}\n"
                f"All that ComfyUI said is in {self.log_path}."
            )

    def _why_it_died(self) -> str:
        assert self.process is not None
        log = self.log()
        if "No space left on device" in log:
            return full_disk("a file of ComfyUI") + f" ComfyUI's log is {self.log_path}."
        if "address already in use" in log.lower():
            return _in_use(self.options.port)
        return (
            f"ComfyUI ended while it started (exit status {self.process.returncode}). Its last "
            f"words:\n{self._tail()}\nAll of them are in {self.log_path}."
        )

    def _tail(self) -> str:
        lines = [f"  | {line}" for line in self.log().splitlines() if line.strip()]
        return "\n".join(lines[-TAIL_LINES:]) or "  | (nothing)"

    def _make_folders(self) -> None:
        for folder in (self.input, self.output, self.user, self._temp()):
            folder.mkdir(parents=True, exist_ok=True)
        example = self.options.comfyui / "input" / "example.png"
        if example.is_file() and not (self.input / example.name).is_file():
            shutil.copyfile(example, self.input / example.name)
        packs = None
        if self.options.pack and self._own_name() is None:
            packs = self.options.folder / "packs"
            make_link(packs / PACK, REPOSITORY)
        write_paths(self._paths(), self.options.models, packs)

    def _paths(self) -> Path:
        return self.options.folder / f"extra_model_paths-{self.options.port}.yaml"

    def _temp(self) -> Path:
        # One each: ComfyUI empties its temp folder at start and end.
        return self.options.folder / f"temp-{self.options.port}"

    def _own_name(self) -> str | None:
        """Return the name by which this ComfyUI's own custom_nodes holds this checkout, if so."""
        folder = self.options.comfyui / "custom_nodes"
        if not folder.is_dir():
            return None
        for entry in folder.iterdir():
            if entry.is_dir() and entry.resolve() == REPOSITORY.resolve():
                return entry.name
        return None

    @property
    def pack_name(self) -> str:
        """The name of the folder that ComfyUI loads this pack from."""
        return self._own_name() or PACK

    def _command(self) -> list[str]:
        options = self.options
        database = self.user / f"comfyui-{options.port}.db"
        wanted: list[Sequence[str]] = [
            ["--listen", HOST],
            ["--port", str(options.port)],
            ["--input-directory", str(self.input)],
            ["--output-directory", str(self.output)],
            ["--temp-directory", str(self._temp())],
            ["--user-directory", str(self.user)],
            ["--database-url", f"sqlite:///{database}"],
            ["--extra-model-paths-config", str(self._paths())],
            ["--use-pytorch-cross-attention"],
            ["--disable-xformers"],
            ["--disable-api-nodes"],
            ["--disable-auto-launch"],
        ]
        if options.only_this_pack:
            wanted.append(["--disable-all-custom-nodes"])
            if options.pack:
                wanted.append(["--whitelist-custom-nodes", self.pack_name])
        known = self._known_flags()
        flags = [word for group in wanted if group[0] in known for word in group]
        attached = Path(__file__).with_name("attached.py")
        main = options.comfyui / "main.py"
        return [str(options.python), str(attached), str(main), *flags, *options.arguments]

    def _known_flags(self) -> str:
        """Return the text that defines ComfyUI's flags: not every version has all of them."""
        return (self.options.comfyui / "comfy" / "cli_args.py").read_text(encoding="utf-8")

    def _environment(self) -> dict[str, str]:
        environment = clean_environment(
            XFORMERS_DISABLED="1",
            PYTHONUNBUFFERED="1",
            PYTHONIOENCODING="utf-8",
        )
        environment.pop("ANIMATION_STUDIO_CONFIG", None)
        if self.options.config is not None:
            environment["ANIMATION_STUDIO_CONFIG"] = str(self.options.config)
        return {**environment, **self.options.environment}


def _ends(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def get_json(url: str, timeout: float = 30.0) -> Any | None:  # noqa: ANN401 - any JSON
    """Return the JSON that a local address answers with, or None when it does not."""
    try:
        with _OPENER.open(url, timeout=timeout) as answer:
            return json.load(answer)
    except (OSError, ValueError, urllib.error.URLError):
        return None


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def require_free_port(port: int) -> None:
    """Raise Problem when something listens on a port already, or the port may not be used."""
    with socket.socket() as listener:
        if os.name != "nt":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except PermissionError:
            raise Problem(
                f"Port {port} needs administrator rights; choose one above 1023, for example "
                f"--port {free_port()}."
            ) from None
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise Problem(f"Port {port} cannot be used: {error.strerror}.") from None
            raise Problem(_in_use(port)) from None


def _in_use(port: int) -> str:
    stats = get_json(f"http://{HOST}:{port}/system_stats", timeout=3.0)
    system = stats.get("system") if isinstance(stats, dict) else None
    version = system.get("comfyui_version") if isinstance(system, dict) else None
    who = f"a ComfyUI {version}" if version else "another program"
    return (
        f"Port {port} is in use by {who}. Stop it, or choose another port, for example "
        f"--port {free_port()}."
    )


def _words_about_packs(log: str) -> str:
    """Return the last lines before ComfyUI sums up what it loaded: why a pack failed."""
    lines = log.partition("Import times for custom nodes")[0].splitlines()
    return "\n".join(f"  | {line}" for line in lines if line.strip()).rstrip()[-3000:]


def make_link(link: Path, target: Path) -> None:
    """Make a folder link, or put a wrong one right. Windows gets a junction (no rights needed)."""
    if link.is_symlink() or link.exists():
        if link.resolve() == target.resolve():
            return
        if sys.platform == "win32":
            link.rmdir()
        else:
            link.unlink()
    link.parent.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        import _winapi

        _winapi.CreateJunction(str(target), str(link))
    else:
        link.symlink_to(target, target_is_directory=True)

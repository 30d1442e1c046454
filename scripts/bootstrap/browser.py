"""A Chromium for the tests of the page: the system's, else Debian's as root, else playwright's."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from .environment import Interpreter
from .home import Home
from .processes import clean_environment, follow, printed_by
from .say import Problem, Steps
from .system import apt_install

__all__ = ["ensure_browser", "find_browser", "launch_arguments"]

VARIABLE = "ANIMATION_STUDIO_BROWSER"
COMMANDS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "msedge",
    "microsoft-edge",
)
APPLICATIONS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Microsoft/Edge/Application/msedge.exe",
)


def find_browser() -> str | None:
    """Return the path of a Chromium that runs: $ANIMATION_STUDIO_BROWSER, else the system's."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return chosen
    found = [path for path in map(shutil.which, COMMANDS) if path]
    found += [path for path in APPLICATIONS if Path(path).is_file()]
    return next((path for path in found if _runs(path)), None)


def launch_arguments() -> list[str]:
    """Return the flags for a headless browser that talks to ComfyUI alone, also as root."""
    return [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-default-apps",
        "--disable-domain-reliability",
        "--disable-extensions",
        "--disable-sync",
        "--no-first-run",
        "--no-default-browser-check",
        "--no-proxy-server",
        "--metrics-recording-only",
    ]


def ensure_browser(home: Home, dev: Interpreter, steps: Steps) -> str:
    """Return the path of a Chromium, installed where there is none. Raises Problem without one."""
    found = find_browser() or _playwrights(home, dev)
    if found:
        return found
    if apt_install(["chromium"], steps):
        found = find_browser()
        if found:
            return found
    return _fetch_playwrights(home, dev, steps)


def _runs(path: str) -> bool:
    """Say whether it is a browser: Ubuntu's chromium-browser may be a note that there is none."""
    # On Windows --version opens a window.
    return sys.platform == "win32" or bool(printed_by([path, "--version"], timeout=30))


def _playwrights(home: Home, dev: Interpreter) -> str | None:
    code = (
        "from playwright.sync_api import sync_playwright as s\n"
        "with s() as p: print(p.chromium.executable_path)"
    )
    if not (home.root / "browsers").is_dir():
        return None
    os.environ["PLAYWRIGHT_BROWSERS_PATH"] = str(home.root / "browsers")
    path = (printed_by([dev.path, "-c", code]) or "").strip()
    return path if path and Path(path).is_file() and _runs(path) else None


def _fetch_playwrights(home: Home, dev: Interpreter, steps: Steps) -> str:
    browsers = home.root / "browsers"
    steps.note("fetching a Chromium through playwright")
    log = home.logs / "browser.log"
    command: list[str | Path] = [dev.path, "-m", "playwright", "install", "chromium"]
    environment = clean_environment(PLAYWRIGHT_BROWSERS_PATH=str(browsers))
    status, _ = follow(command, log, steps, lambda line: line.strip()[:70] or None, environment)
    found = _playwrights(home, dev) if status == 0 else None
    if found is None:
        raise Problem(
            "The tests of the page need Chromium or Chrome, and none was found or could be "
            f"fetched ({log}). Install one (Debian, Ubuntu: `sudo apt install chromium`), or name "
            f"its path in {VARIABLE}."
        )
    return found

"""A real Chromium on the page of the running ComfyUI."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from scripts.bootstrap.browser import find_browser, launch_arguments

SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.VersionCompatibility.DisableWarnings": True,
    "Comfy.EnableTooltips": False,
    "Comfy.VueNodes.Enabled": False,
}
VIEW = {"width": 1600, "height": 1000}


@dataclass
class Studio:
    """ComfyUI's page with what went wrong on it."""

    page: Page
    errors: list[str] = field(default_factory=list)

    def open(self, workflow: dict) -> None:
        """Load a page-format workflow as dropping its file does."""
        self.page.evaluate("(workflow) => app.loadGraphData(workflow)", workflow)
        self.page.wait_for_function("!app.extensionManager.workflow.isBusy")
        self.page.wait_for_timeout(200)

    def prompt(self) -> dict:
        """Return the graph in HTTP form."""
        return self.page.evaluate("async () => (await app.graphToPrompt()).output")

    def node(self, class_type: str) -> str:
        """Return the id of the only node of a class."""
        script = "(type) => String(app.graph.nodes.find(n => n.comfyClass === type).id)"
        return self.page.evaluate(script, class_type)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_browser(), args=launch_arguments()
        )
        yield browser
        browser.close()


@pytest.fixture(params=["canvas", "vue"])
def studio(request, comfyui, browser) -> Iterator[Studio]:
    """The page in each of its two renderers."""
    vue = request.param == "vue"
    comfyui.post_json("/api/settings", SETTINGS | {"Comfy.VueNodes.Enabled": vue})
    page = browser.new_page(viewport=VIEW)
    studio = Studio(page)
    page.on("pageerror", lambda error: studio.errors.append(str(error)))
    page.on(
        "console",
        lambda message: (
            studio.errors.append(message.text)
            if message.type == "error" and "ComfyUI-Animation-Studio" in str(message.location)
            else None
        ),
    )
    page.on(
        "response",
        lambda answer: (
            studio.errors.append(f"{answer.status} {answer.url}")
            if answer.status >= 400 and "nimation" in answer.url
            else None
        ),
    )
    page.goto(comfyui.url)
    page.wait_for_function("window.app?.extensionManager && window.app.graph")
    page.wait_for_selector(".p-blockui-mask", state="detached")
    page.wait_for_function(
        "app.extensions.some(extension => extension.name === 'AnimationStudio.Report')"
    )
    yield studio
    page.close()
    comfyui.post_json("/api/settings", {"Comfy.VueNodes.Enabled": False})

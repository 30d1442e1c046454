#!/usr/bin/env python3
"""Make workflows/api/NAME.json and workflows/NAME.jpg from workflows/NAME.json in ComfyUI's page.

    python scripts/export_workflows.py http://127.0.0.1:8188 [NAME ...]

A ComfyUI with this pack must run at the address. The HTTP form is what the page's own
`graphToPrompt` gives, the thumbnail a screenshot of the graph as the page draws it. Needs
playwright and Pillow (the `dev` extra) and a Chromium.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from scripts.bootstrap.browser import find_browser, launch_arguments

WORKFLOWS = Path(__file__).parents[1] / "workflows"
THUMBNAIL = (640, 360)

OPEN = """async (workflow) => {
  await app.loadGraphData(workflow);
  const frames = async (n) => { while (n--) await new Promise(requestAnimationFrame); };
  await frames(4);
  const nodes = app.graph.nodes;
  const left = Math.min(...nodes.map(n => n.pos[0]), ...app.graph._groups.map(g => g.pos[0]));
  const top = Math.min(...nodes.map(n => n.pos[1] - 40), ...app.graph._groups.map(g => g.pos[1]));
  const right = Math.max(...nodes.map(n => n.pos[0] + n.size[0]),
    ...app.graph._groups.map(g => g.pos[0] + g.size[0]));
  const bottom = Math.max(...nodes.map(n => n.pos[1] + n.size[1]),
    ...app.graph._groups.map(g => g.pos[1] + g.size[1]));
  const area = app.canvas.canvas.getBoundingClientRect();
  const scale = Math.min(area.width / (right - left + 80), area.height / (bottom - top + 80));
  app.canvas.ds.scale = scale;
  app.canvas.ds.offset = [
    (area.width / scale - (right - left)) / 2 - left,
    (area.height / scale - (bottom - top)) / 2 - top,
  ];
  app.canvas.setDirty(true, true);
  await frames(4);
  return (await app.graphToPrompt()).output;
}"""


def open_page(page: Page, address: str) -> None:
    """Open ComfyUI's page and wait until it can take a graph."""
    page.goto(address)
    page.wait_for_function("window.app?.extensionManager && window.app.graph")
    page.wait_for_selector(".p-blockui-mask", state="detached")
    page.wait_for_timeout(1500)


def main(address: str, names: list[str]) -> None:
    """Export the named workflows, or all."""
    files = sorted(WORKFLOWS.glob("*.json"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_browser(), args=launch_arguments()
        )
        page = browser.new_page(viewport={"width": 1920, "height": 1080})
        open_page(page, address)
        for file in files:
            if names and file.stem not in names:
                continue
            prompt = page.evaluate(OPEN, json.loads(file.read_text()))
            text = json.dumps(prompt, indent=2, ensure_ascii=False) + "\n"
            (WORKFLOWS / "api" / file.name).write_text(text)
            picture = Image.open(io.BytesIO(page.locator("#graph-canvas").screenshot()))
            picture.convert("RGB").resize(THUMBNAIL, Image.Resampling.LANCZOS).save(
                file.with_suffix(".jpg"), quality=82, optimize=True
            )
            print(file.stem)
        browser.close()


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])

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
THUMBNAIL = (900, 900)

# The page's own bars; the graph is laid out beside them, and they are not in the picture.
BARS = {"left": 90, "top": 130, "right": 30, "bottom": 30}

OPEN = """async ([workflow, bars]) => {
  await app.loadGraphData(workflow);
  const frames = async (n) => { while (n--) await new Promise(requestAnimationFrame); };
  await frames(4);
  const boxes = [
    ...app.graph.nodes.map(n => [n.pos[0], n.pos[1] - 40, n.size[0], n.size[1] + 40]),
    ...app.graph._groups.map(g => [...g.pos, ...g.size]),
  ];
  const left = Math.min(...boxes.map(b => b[0])) - 20;
  const top = Math.min(...boxes.map(b => b[1])) - 20;
  const width = Math.max(...boxes.map(b => b[0] + b[2])) + 20 - left;
  const height = Math.max(...boxes.map(b => b[1] + b[3])) + 20 - top;
  const area = app.canvas.canvas.getBoundingClientRect();
  const room = [
    window.innerWidth - bars.left - bars.right, window.innerHeight - bars.top - bars.bottom,
  ];
  const scale = Math.min(room[0] / width, room[1] / height);
  app.canvas.ds.scale = scale;
  app.canvas.ds.offset = [
    (bars.left - area.left) / scale - left, (bars.top - area.top) / scale - top,
  ];
  app.canvas.setDirty(true, true);
  await frames(6);
  return {
    prompt: (await app.graphToPrompt()).output,
    clip: {x: bars.left, y: bars.top, width: width * scale, height: height * scale},
  };
}"""

# What floats over the graph; the renderer that keeps positions as they are saved; all details.
SETTINGS = {
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasMenu": False,
    "Comfy.VueNodes.Enabled": False,
    # Large graphs are drawn small: their text too.
    "LiteGraph.Canvas.MinFontSizeForLOD": 0,
}


def open_page(page: Page, address: str) -> None:
    """Open ComfyUI's page and wait until it can take a graph."""
    page.goto(address)
    page.wait_for_function("window.app?.extensionManager && window.app.graph")
    page.wait_for_selector(".p-blockui-mask", state="detached")
    page.evaluate(
        "async (all) => { for (const [k, v] of Object.entries(all)) "
        "await app.extensionManager.setting.set(k, v); }",
        SETTINGS,
    )
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
            opened = page.evaluate(OPEN, [json.loads(file.read_text()), BARS])
            text = json.dumps(opened["prompt"], indent=2, ensure_ascii=False) + "\n"
            (WORKFLOWS / "api" / file.name).write_text(text)
            picture = Image.open(io.BytesIO(page.screenshot(clip=opened["clip"]))).convert("RGB")
            picture.thumbnail(THUMBNAIL, Image.Resampling.LANCZOS)
            picture.save(file.with_suffix(".jpg"), quality=82, optimize=True)
            print(file.stem)
        browser.close()


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])

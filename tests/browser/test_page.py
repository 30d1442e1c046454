"""The pack in ComfyUI's own page, in a real browser and in both renderers."""

from __future__ import annotations

import re
import time

import pytest

from tests.support.pictures import saved
from tests.support.prompts import NAMES, bundled, page_form

DROP = """async (url) => {
  const blob = await (await fetch(url)).blob();
  const transfer = new DataTransfer();
  transfer.items.add(new File([blob], "take.png", {type: "image/png"}));
  const options = {dataTransfer: transfer, bubbles: true, cancelable: true};
  document.querySelector("#graph-canvas").dispatchEvent(new DragEvent("dragover", options));
  document.querySelector("#graph-canvas").dispatchEvent(new DragEvent("drop", options));
}"""

SET_SCENE = """(text) => {
  const loader = app.graph.nodes.find(n => n.comfyClass === "AnimStudio_CharacterLoraLoader");
  loader.widgets.find(widget => widget.name === "scene_text").value = text;
}"""

SET_PREFIX = """(text) => {
  const take = app.graph.nodes.find(n => n.comfyClass === "AnimStudio_SaveTake");
  take.widgets.find(widget => widget.name === "filename_prefix").value = text;
}"""

GUARD = """() => {
  app.graph.clear();
  const [picture, guard, take] = ["EmptyImage", "AnimStudio_VRAMGuard", "AnimStudio_SaveTake"]
    .map((type) => { const node = LiteGraph.createNode(type); app.graph.add(node); return node; });
  picture.widgets[0].value = picture.widgets[1].value = 64;
  guard.widgets.find(widget => widget.name === "purpose").value = "everything off";
  picture.connect(0, guard, "value");
  guard.connect(0, take, "images");
  window.guard = guard;
}"""

INTO_SUBGRAPH = """() => {
  const loader = app.graph.nodes.find(n => n.comfyClass === "AnimStudio_CharacterLoraLoader");
  app.graph.convertToSubgraph(new Set([loader]));
}"""

REPORT_INSIDE = """() => app.graph.nodes.some(outer => outer.subgraph?.nodes.some(node =>
  node.widgets.some(widget => widget.element?.textContent.includes("character luca: weight"))))"""


def test_page_loads_the_pack_without_an_error(studio):
    names = studio.page.evaluate(
        "Object.keys(LiteGraph.registered_node_types).filter(n => n.startsWith('AnimStudio_'))"
    )
    assert sorted(names) == [
        "AnimStudio_CalibrateThreshold",
        "AnimStudio_CharacterLoraLoader",
        "AnimStudio_ConsistencyFilter",
        "AnimStudio_Control",
        "AnimStudio_FaceReferences",
        "AnimStudio_Judge",
        "AnimStudio_JudgeRound",
        "AnimStudio_JudgeTry",
        "AnimStudio_PlanFromText",
        "AnimStudio_Pose",
        "AnimStudio_PromptWriter",
        "AnimStudio_QualityPreset",
        "AnimStudio_Refine",
        "AnimStudio_ResumeLLM",
        "AnimStudio_SavePose",
        "AnimStudio_SaveReport",
        "AnimStudio_SaveTake",
        "AnimStudio_UntilAccepted",
        "AnimStudio_UntilConsistent",
        "AnimStudio_VRAMGuard",
    ]
    assert studio.errors == []


@pytest.mark.parametrize("name", NAMES)
def test_workflow_opens_whole_and_is_its_http_form(studio, name):
    studio.open(page_form(name))
    missing = studio.page.evaluate(
        "app.graph.nodes.filter(n => n.has_errors || !LiteGraph.registered_node_types[n.type])"
        ".map(n => n.type)"
    )
    assert missing == []
    assert studio.page.locator(".comfy-missing-nodes, .comfy-missing-models").count() == 0
    assert studio.page.get_by_text("Invalid workflow").count() == 0
    assert studio.prompt() == bundled(name)
    assert studio.errors == []


def test_dropped_take_restores_its_graph(studio, comfyui):
    name = "luca_portorosso"
    [picture] = saved(comfyui, comfyui.run(bundled(name), page_form(name)))
    place = picture.relative_to(comfyui.output_dir)
    url = f"/api/view?filename={place.name}&subfolder={place.parent.as_posix()}&type=output"
    studio.page.evaluate(DROP, url)
    studio.page.wait_for_function("app.graph.nodes.length > 0")
    studio.page.wait_for_function(
        "app.graph.nodes.some(n => n.comfyClass === 'AnimStudio_CharacterLoraLoader')"
    )
    assert studio.prompt() == bundled(name)
    assert studio.errors == []


def test_run_in_the_page_shows_what_the_loader_did(studio, comfyui):
    studio.open(page_form("luca_character"))
    # A node that ComfyUI has cached does not run, and so reports nothing.
    studio.page.evaluate(SET_SCENE, f"scene {time.time_ns()}")
    studio.page.evaluate("app.queuePrompt(0)")
    report = studio.page.locator(".animstudio-report", has_text="character luca: weight 0.85")
    report.first.wait_for(timeout=180_000)
    assert "CLIP window" in report.first.text_content()
    assert studio.errors == []


def test_a_node_inside_a_subgraph_reports_too(studio):
    studio.open(page_form("luca_character"))
    studio.page.evaluate(SET_SCENE, f"scene {time.time_ns()}")
    studio.page.evaluate(INTO_SUBGRAPH)
    studio.page.evaluate("app.queuePrompt(0)")
    studio.page.wait_for_function(REPORT_INSIDE, timeout=180_000)
    assert studio.errors == []


def test_a_guard_tells_what_it_does_and_saves_none_of_it(studio):
    """Progress while it runs, then the report; neither goes into the saved workflow."""
    studio.page.evaluate(GUARD)
    before = studio.page.evaluate("async () => (await app.graphToPrompt()).workflow.nodes[1]")
    studio.page.evaluate(
        "() => { window.seen = []; const report = window.guard.widgets.at(-1).element;"
        "new MutationObserver(() => window.seen.push(report.textContent))"
        ".observe(report, {childList: true, subtree: true}); }"
    )
    studio.page.evaluate("app.queuePrompt(0)")
    studio.page.wait_for_function(
        'window.seen.some(text => text.includes("ComfyUI\'s models unloaded ("))',
        timeout=120_000,
    )
    seen = studio.page.evaluate("window.seen")
    assert "ComfyUI's models: unload ..." in seen[0]
    after = studio.page.evaluate("async () => (await app.graphToPrompt()).workflow.nodes[1]")
    assert after["widgets_values"] == before["widgets_values"]
    assert studio.errors == []


def test_dates_in_the_prefix_are_replaced(studio):
    studio.open(page_form("luca_character"))
    studio.page.evaluate(SET_PREFIX, "%date:yyyy%/%Who and where.character%_%width%")
    prompt = studio.prompt()
    prefix = prompt[studio.node("AnimStudio_SaveTake")]["inputs"]["filename_prefix"]
    assert re.fullmatch(r"20\d\d/luca_%width%", prefix)


def test_templates_and_help_pages_are_served(studio, comfyui):
    offered = comfyui.get_json("/api/workflow_templates")["ComfyUI-Animation-Studio"]
    assert set(offered) == set(NAMES)
    for node in comfyui.get_json("/object_info"):
        if node.startswith("AnimStudio_"):
            url = f"/extensions/ComfyUI-Animation-Studio/docs/{node}.md"
            text = studio.page.evaluate("async (url) => (await fetch(url)).text()", url)
            assert text.startswith("# "), node
    for name in offered:
        url = f"/api/workflow_templates/ComfyUI-Animation-Studio/{name}.jpg"
        assert studio.page.evaluate("async (url) => (await fetch(url)).status", url) == 200, name


def test_every_input_has_a_tooltip(comfyui):
    for name, node in comfyui.get_json("/object_info").items():
        if not name.startswith("AnimStudio_"):
            continue
        assert node["description"]
        for group in node["input"].values():
            for key, spec in group.items():
                if isinstance(spec, list) and len(spec) == 2 and isinstance(spec[1], dict):
                    assert spec[1].get("tooltip"), f"{name}.{key}"

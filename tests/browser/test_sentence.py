"""A sentence becomes a plan in the page, in both renderers."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.scripted_llm import ScriptedLlm
from tests.support.services import service_file
from tests.support.standin_service import StandIn

WRITER = """(sentence) => {
  app.graph.clear();
  const [writer, shown] = ["AnimStudio_PromptWriter", "PreviewAny"]
    .map((type) => { const node = LiteGraph.createNode(type); app.graph.add(node); return node; });
  writer.widgets.find(widget => widget.name === "sentence").value = sentence;
  writer.connect(10, shown, "source");
  window.report = writer.widgets.at(-1).element;
  window.seen = [];
  new MutationObserver(() => window.seen.push(window.report.textContent))
    .observe(window.report, {childList: true, subtree: true});
}"""


@pytest.fixture
def qwen(comfyui) -> Iterator[StandIn]:
    """A slow language model, the only service of the ComfyUI that all tests share."""
    file = comfyui.config_dir / "services.yaml"
    before = file.read_text(encoding="utf-8") if file.is_file() else None
    with StandIn("vllm") as server:
        server.model.says = ScriptedLlm()
        server.model.token_seconds = 0.01
        text = service_file("qwen", {"kind": "vllm", "base_url": server.url})
        file.write_text(text, encoding="utf-8")
        yield server
    if before is None:
        file.unlink()
    else:
        file.write_text(before, encoding="utf-8")


def test_a_writer_counts_tokens_and_then_tells_its_plan(studio, qwen):
    studio.page.evaluate(WRITER, f"Luca runs ({time.monotonic_ns()})")
    studio.page.evaluate("app.queuePrompt(0)")
    studio.page.wait_for_function(
        r"window.seen.some(text => /qwen: \d+ tokens/.test(text))", timeout=60_000
    )
    studio.page.wait_for_function(
        "window.report.textContent.includes('characters luca; expression excited')",
        timeout=60_000,
    )
    assert "running along the beach" in studio.page.evaluate("window.report.textContent")
    assert studio.errors == []

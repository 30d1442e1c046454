/**
 * Shows what a node did on the node itself (weights, matched LoRA modules, CLIP windows, warnings),
 * and tells once when the configuration has problems.
 *
 * Nodes send `animstudio_report: [{lines, warnings}]` in their ui output, and the message
 * `animation_studio.progress` {node, text} while they run. The widget is a plain DOM
 * widget, so it works in both of the page's renderers, and it is never saved with the workflow.
 */
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const PREFIX = "AnimStudio_";
const WIDGET = "animstudio_report";
// Pixels: a line of the report, and the most that a report takes before it scrolls.
const LINE = 16;
const MOST = 160;
// Problems of the configuration that one message names.
const SHOWN = 5;

/**
 * @typedef {{lines: string[], warnings: string[]}} Report
 * @typedef {import("../../scripts/app.js").GraphNode} GraphNode
 */

/**
 * Adds the report's place to a new node: empty and without height until there is a report. It must
 * be there from the beginning, since the page's newer renderer shows no widget that comes later.
 * @param {GraphNode} node
 */
function addReport(node) {
  const element = document.createElement("div");
  element.className = "animstudio-report";
  element.style.cssText =
    "font: 11px/1.4 monospace; white-space: pre-wrap; overflow: auto; color: var(--descrip-text, #999);";
  const widget = node.addDOMWidget(WIDGET, WIDGET, element, {
    serialize: false,
    // Long lines are wrapped: then it is higher than it has lines.
    getMinHeight: () =>
      element.childElementCount
        ? Math.min(Math.max(element.childElementCount * LINE, element.scrollHeight), MOST)
        : 0,
    getMaxHeight: () => (element.childElementCount ? MOST : 0),
  });
  widget.serialize = false;
}

/**
 * @param {GraphNode} node
 * @param {Report} report
 */
function show(node, report) {
  const element = node.widgets?.find((widget) => widget.name === WIDGET)?.element;
  if (!element) return;
  element.replaceChildren(
    ...report.warnings.map((text) => line(`⚠ ${text}`, "var(--warning-color, #e8a33d)")),
    ...report.lines.map((text) => line(text)),
  );
  const [width, height] = node.computeSize();
  node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)]);
  node.setDirtyCanvas?.(true, true);
}

/**
 * @param {string} text shown as text, never as HTML: it can hold words of a stranger's workflow
 * @param {string} [color]
 */
function line(text, color) {
  const element = document.createElement("div");
  element.textContent = text;
  if (color) element.style.color = color;
  return element;
}

/**
 * Shows a node's report when it ran. The page finds the node, in subgraphs too, and calls this.
 * @param {GraphNode} node
 */
function listen(node) {
  const before = node.onExecuted;
  node.onExecuted = function (output) {
    before?.call(this, output);
    const report = output?.[WIDGET]?.[0];
    if (report) show(node, report);
  };
}

/**
 * @param {string} path a node's id in a running prompt: "5", or "12:5" for node 5 in subgraph 12
 * @returns {GraphNode | null | undefined}
 */
function nodeAt(path) {
  /** @type {import("../../scripts/app.js").Graph | undefined} */
  let graph = app.rootGraph ?? app.graph;
  /** @type {GraphNode | null | undefined} */
  let node;
  for (const id of path.split(":")) {
    node = graph?.getNodeById(id);
    graph = node?.subgraph;
  }
  return node;
}

/**
 * Shows what a running node does just now, until its report comes. ComfyUI's own progress text
 * would stay on the node and be saved with the workflow.
 * @param {CustomEvent<{node: string, text: string}>} event
 */
function showProgress({ detail }) {
  const node = nodeAt(detail.node);
  if (node) show(node, { lines: [`${detail.text} ...`], warnings: [] });
}

/**
 * Lets Save Take's prefix know %date:yyyy-MM-dd% and %Node.widget%, which the page replaces for
 * core's save nodes only. Where the page offers no replacement, the text goes out as it stands.
 * @param {GraphNode} node
 */
function replacePlaceholders(node) {
  const widget = node.widgets?.find((widget) => widget.name === "filename_prefix");
  if (!widget) return;
  widget.serializeValue = () => {
    const replace = window.comfyAPI?.utils?.applyTextReplacements;
    return replace ? replace(app, String(widget.value)) : widget.value;
  };
}

/** Tells of the first problems in one message, however many there are. */
async function tellProblems() {
  const answer = await api.fetchApi("/animation_studio/problems").catch(() => null);
  if (!answer?.ok) return;
  /** @type {{problems: {severity: "error" | "warning", text: string}[]}} */
  const { problems } = await answer.json();
  if (!problems.length) return;
  const more = problems.length - SHOWN;
  app.extensionManager.toast.add({
    severity: problems.some(({ severity }) => severity === "error") ? "error" : "warn",
    summary: "Animation Studio: configuration",
    detail: [
      ...problems.slice(0, SHOWN).map(({ text }) => text),
      ...(more > 0 ? [`... and ${more} more; the terminal shows all.`] : []),
    ].join("\n"),
    life: 20000,
  });
}

app.registerExtension({
  name: "AnimationStudio.Report",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith(PREFIX)) return;
    addReport(node);
    listen(node);
    if (node.comfyClass === `${PREFIX}SaveTake`) replacePlaceholders(node);
  },
  setup() {
    api.addEventListener("animation_studio.progress", showProgress);
    return tellProblems();
  },
  // R in the page: the combos have just been read again, and with them the configuration.
  refreshComboInNodes: tellProblems,
});

// Findings with their fixes, error counters that moved while the page was open, and the journal.

import { command, el, find, health, keyed } from "./dom.js";
import { clock } from "./format.js";

const moved = new Map();
const totals = new Map();
const began = Date.now() / 1000;
const LEVELS = { info: "quiet", warn: "warn", warning: "warn", error: "bad" };

export function showLists(tree, changed) {
  if (!changed || changed.nodes) {
    findings(tree.nodes);
    errors(changed?.nodes ?? tree.nodes, tree.nodes);
  }
  if (!changed || changed.events) journal(tree.events ?? []);
}

function findings(nodes) {
  const all = new Map();
  for (const node of Object.values(nodes)) {
    for (const found of node.findings ?? []) {
      const key = `${found.status} ${found.id} ${found.fix ?? ""}`;
      if (!all.has(key)) all.set(key, { ...found, on: [] });
      all.get(key).on.push(node.node.name);
    }
  }
  const list = find("#findings ul");
  const sorted = [...all.entries()].sort((a, b) => a[1].status.localeCompare(b[1].status));
  const keys = sorted.map(([key, found]) => `${key} ${found.on.join(" ")} ${found.evidence ?? ""}`);
  if (list.keys === keys.join("\n")) return;
  list.keys = keys.join("\n");
  list.replaceChildren(...(sorted.length ? sorted.map(([, found]) => finding(found)) : [el("li", { class: "quiet" }, "None: the agents' own checks found nothing.")]));
}

function finding(found) {
  const on = found.on.length > 3 ? `${found.on.slice(0, 3).join(", ")} and ${found.on.length - 3} more` : found.on.join(", ");
  const item = el(
    "li",
    { class: "finding" },
    el("p", {}, el("span", { class: "mark", "aria-hidden": "true" }), el("strong", {}, found.status), ` ${on}: ${found.title} `, el("span", { class: "quiet" }, found.id)),
  );
  if (found.evidence) item.append(el("p", { class: "quiet" }, found.evidence));
  if (found.fix) item.append(command(found.fix));
  health(item, found.status === "FAIL" ? "bad" : "warn");
  return item;
}

// By totals, and not by what each message says has moved: none is counted twice, or lost, where the stream breaks.
function errors(changed, nodes) {
  for (const address of Object.keys(changed)) {
    for (const [port, hca] of Object.entries(nodes[address]?.hcas ?? {})) {
      for (const [name, total] of Object.entries(hca.errors ?? {})) {
        const key = `${nodes[address].node.name} ${port} ${name}`;
        if (!totals.has(key)) totals.set(key, { first: total, last: total });
        const seen = totals.get(key);
        if (total > seen.last) moved.set(key, { by: total - seen.first, at: Date.now() / 1000 });
        if (total < seen.last) seen.first = total;
        seen.last = total;
      }
    }
  }
  const list = find("#errors ul");
  const keys = moved.size ? [...moved.keys()].sort((a, b) => moved.get(b).at - moved.get(a).at).slice(0, 30) : [""];
  keyed(list, keys, () => el("li"), (item, key) => {
    health(item, key ? "warn" : "none");
    if (!key) item.className = "quiet";
    const words = key ? `${key}: +${moved.get(key).by}, last at ${clock(moved.get(key).at)}` : `None since ${clock(began)}, when this page was opened.`;
    if (item.textContent !== words) item.replaceChildren(...(key ? [el("span", { class: "mark", "aria-hidden": "true" })] : []), words);
  });
}

function journal(events) {
  const keys = events.map((event, at) => `${event.at} ${event.node} ${event.kind} ${event.text} ${at && events[at - 1].at === event.at ? at : ""}`).reverse();
  const by = new Map(keys.map((key, at) => [key, events[events.length - 1 - at]]));
  keyed(find("#events ol"), [...by.keys()], (key) => line(by.get(key)), () => {});
}

function line(event) {
  const item = el(
    "li",
    {},
    el("time", {}, clock(event.at)),
    el("span", { class: "mark", "aria-hidden": "true" }),
    el("span", { class: "node-name" }, event.node ?? ""),
    el("span", { class: "kind" }, event.kind),
    el("span", { class: "what" }, event.text),
  );
  health(item, LEVELS[event.level ?? "info"] ?? "quiet");
  return item;
}

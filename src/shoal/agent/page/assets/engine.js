// The engine: its state, the phases of its start, and what it does for its users.

import { attribute, el, find, health, keyed, shown, text } from "./dom.js";
import { engineHealth, number, percent, seconds, short } from "./format.js";

const PHASES = ["gate", "placement", "weights", "compile", "warm-up", "first token"];
const KEPT = 120;
const SVG = "http://www.w3.org/2000/svg";

// Label, the value in words, a line below it, and the number whose course is drawn.
const TILES = [
  ["Tokens out", (s) => `${short(s.tokens_per_s)} /s`, (s) => `in: ${short(s.prompt_tokens_per_s)} /s`, (s) => s.tokens_per_s],
  ["Time to first token", (s) => seconds(s.ttft_p50_s), (s) => `p95: ${seconds(s.ttft_p95_s)}`, (s) => s.ttft_p50_s],
  ["Between tokens", (s) => seconds(s.itl_p50_s), (s) => `p95: ${seconds(s.itl_p95_s)}`, (s) => s.itl_p50_s],
  ["Requests running", (s) => number(s.requests_running), (s) => `waiting: ${number(s.requests_waiting)}`, (s) => s.requests_running],
  ["KV cache in use", (s) => percent(s.kv_cache_use), () => "", (s) => s.kv_cache_use],
];
const courses = TILES.map(() => []);

export function showEngine(tree) {
  const place = find("#engine");
  const engine = tree.status.engine;
  const state = find(".state", place);
  health(state, engine ? engineHealth(engine.state) : "bad");
  stateLine(state, engine);
  phases(place, engine);
  tiles(find("dl", place), tree.serving ?? {});
}

function stateLine(place, engine) {
  if (!place.firstChild) {
    place.append(el("span", { class: "mark", "aria-hidden": "true" }), el("strong"), " ", el("span", { class: "what" }));
  }
  const [, name, , what] = place.childNodes;
  text(name, engine ? engine.state : "unknown");
  if (!engine) return text(what, "its supervisor has said nothing yet");
  const transport = engine.transport;
  const over = transport ? `traffic over ${transport.kind.toUpperCase()}${transport.degraded ? ", DEGRADED" : ""}: ${transport.detail ?? ""}` : "";
  const restarts = engine.restarts ? `restarts: ${engine.restarts}` : "";
  text(what, [engine.model, engine.detail, over, restarts].filter(Boolean).join(" · "));
}

function phases(place, engine) {
  const took = engine?.phases ?? {};
  const now = engine?.phase ?? "";
  const bar = find(".phases", place);
  const done = find(".phases-done", place);
  shown(bar, Boolean(now));
  const sum = Object.values(took).reduce((all, one) => all + one, 0);
  shown(done, !now && sum > 0);
  const words = PHASES.filter((name) => name in took).map((name) => `${name} ${number(took[name], 0)} s`);
  text(done, `Started in ${number(sum, 0)} s: ${words.join(", ")}`);
  if (!now) return;
  const at = PHASES.indexOf(now);
  keyed(bar, PHASES, () => el("li"), (item, name) => {
    const place = PHASES.indexOf(name);
    const skipped = place < at && !(name in took);
    attribute(item, "data-phase", skipped ? "skipped" : place < at ? "done" : place === at ? "now" : "next");
    if (place === at) attribute(item, "aria-current", "step");
    else item.removeAttribute("aria-current");
    text(item, name in took ? `${name} ${number(took[name], 0)} s` : name);
  });
}

function tiles(list, serving) {
  keyed(list, TILES.map((_, index) => index), tile, (item, index) => {
    const [, value, below, course] = TILES[index];
    const [, main, sub] = item.children;
    text(main.firstChild, value(serving));
    text(sub, below(serving));
    courses[index].push(course(serving) ?? null);
    if (courses[index].length > KEPT) courses[index].shift();
    draw(main.lastChild, courses[index]);
  });
}

function tile(index) {
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", `0 0 ${KEPT} 24`);
  picture.setAttribute("preserveAspectRatio", "none");
  picture.setAttribute("aria-hidden", "true");
  picture.append(document.createElementNS(SVG, "polyline"));
  return el("div", { class: "number" }, el("dt", {}, TILES[index][0]), el("dd", {}, el("span"), picture), el("dd", { class: "quiet" }));
}

function draw(picture, course) {
  const most = Math.max(1e-9, ...course.map((one) => one ?? 0));
  const points = course.map((one, at) => (one === null ? "" : `${KEPT - course.length + at},${(22 - (20 * one) / most).toFixed(1)}`));
  attribute(picture.firstChild, "points", points.join(" ").trim());
}

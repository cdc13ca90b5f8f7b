// The cluster as a picture: every node hangs on the rails by its ports; a link is as thick as what it carries.

import { attribute, el, find, health, keyed, shown, text } from "./dom.js";
import { gib, nodeHealth, number, percent, short } from "./format.js";

const FEW = 16; // more nodes than this are tiles
const OPEN = 4; // and up to this many show their GPUs unasked
const AILING = 8;
let chosen = "";
let latest = null;

export function showCluster(tree, changed) {
  const structure = !changed || Object.keys(changed.nodes ?? {}).some((at) => !latest || !(at in latest.nodes) || changed.nodes[at] === null);
  latest = tree;
  const place = find("#cluster");
  const all = order(Object.entries(tree.nodes));
  const touched = structure ? null : new Set(Object.keys(changed.nodes ?? {}));
  text(find(".summary", place), summary(all.map(([, node]) => node)));
  const many = all.length > FEW;
  const rows = many ? picked(all) : all.map(([at]) => at);
  const width = Math.max(1, ...all.map(([, node]) => Object.keys(node.hcas ?? {}).length));
  keyed(find(".nodes", place), rows, (at) => row(at, !many && all.length <= OPEN), (item, at) => {
    if (!touched || touched.has(at) || !item.drawn) drawRow(item, tree.nodes[at], width);
    item.drawn = true;
  });
  attribute(find(".nodes", place), "data-many", String(many));
  shown(find(".many", place), many);
  shown(find(".rails-in-sum", place), many);
  if (!many) return;
  railsInSum(find(".rails-in-sum", place), all.map(([, node]) => node), width);
  keyed(find(".many", place), all.map(([at]) => at), tile, (item, at) => {
    if (!touched || touched.has(at) || !item.drawn || item.dataset.chosen !== String(at === chosen)) drawTile(item, tree.nodes[at], at);
    item.drawn = true;
  });
}

function order(entries) {
  const rank = ([, node]) => (node.node.role === "head" ? 0 : 1);
  return entries.sort((a, b) => rank(a) - rank(b) || a[1].node.name.localeCompare(b[1].node.name, "en", { numeric: true }) || a[0].localeCompare(b[0]));
}

function summary(nodes) {
  const counts = new Map();
  for (const { node } of nodes) counts.set(node.state, (counts.get(node.state) ?? 0) + 1);
  const words = [...counts].sort((a, b) => b[1] - a[1]).map(([state, count]) => `${count} ${state}`);
  const gpus = nodes.reduce((sum, { node }) => sum + (node.gpus ?? 0), 0);
  return `${nodes.length} node${nodes.length === 1 ? "" : "s"}: ${words.join(", ")}; ${gpus} GPU${gpus === 1 ? "" : "s"} offered to Ray`;
}

function picked(all) {
  const ailing = all.filter(([, node]) => nodeHealth(node.node.state) !== "good" || bad(node)).map(([at]) => at);
  const out = ailing.slice(0, AILING);
  if (chosen && !out.includes(chosen) && all.some(([at]) => at === chosen)) out.push(chosen);
  return out;
}

const bad = (node) => (node.findings ?? []).some((one) => one.status === "FAIL");

// ---- one node in full

function row(at, open) {
  const gpus = el("details", { class: "gpus" }, el("summary"), el("table"));
  gpus.open = open;
  return el(
    "li",
    { class: "node" },
    el("div", { class: "rails", "aria-hidden": "true" }),
    el(
      "article",
      { "aria-label": `Node ${at}` },
      el("header", {}, el("span", { class: "mark", "aria-hidden": "true" }), el("h3"), el("strong", { class: "node-state" }), el("span", { class: "quiet about" })),
      el("p", { class: "detail" }),
      el("ul", { class: "ports", "aria-label": "Ports" }),
      gpus,
    ),
  );
}

function drawRow(item, node, width) {
  const [rails, card] = item.children;
  const [head, detail, ports, gpus] = card.children;
  const { name, role, address, state, stage } = node.node;
  health(item, nodeHealth(state));
  attribute(card, "aria-label", `Node ${name}`);
  text(head.children[1], name);
  text(head.children[2], state);
  const restarts = node.node.restarts ? `Ray restarts: ${node.node.restarts}` : "";
  const about = [role, address === name ? "" : address, stage && stage.toLowerCase() !== state && nodeHealth(state) === "busy" ? stage : "", restarts];
  text(head.children[3], about.filter(Boolean).join(" · "));
  text(detail, node.node.detail ?? "");
  shown(detail, Boolean(node.node.detail));
  const names = Object.keys(node.hcas ?? {}).sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  drawRails(rails, names.map((one) => node.hcas[one]), width);
  keyed(ports, names.length ? names : ["none"], port, (line, one) => drawPort(line, node.hcas?.[one]));
  drawGpus(gpus, Object.values(node.gpus ?? {}));
}

function port() {
  return el("li", {}, el("span", { class: "mark", "aria-hidden": "true" }), el("span", { class: "device" }), el("span", { class: "gbps" }), el("span", { class: "quiet rest" }));
}

const use = (hca) => Math.max(hca.received_gbps ?? 0, hca.sent_gbps ?? 0) / (hca.rate_gbps || 100);

function portHealth(hca) {
  if (!/ACTIVE/i.test(hca.state ?? "")) return "bad";
  return Object.keys(hca.errors_moved ?? {}).length ? "warn" : "good";
}

function drawPort(line, hca) {
  const [, device, gbps, rest] = line.children;
  if (!hca) {
    health(line, "none");
    text(device, "no RDMA port");
    text(gbps, "");
    return text(rest, "over its network interface");
  }
  const state = portHealth(hca);
  health(line, state);
  text(device, `${hca.device}${hca.port === 1 ? "" : `/${hca.port}`}`);
  text(gbps, state === "bad" ? (hca.state ?? "no state") : `in ${short(hca.received_gbps)}, out ${short(hca.sent_gbps)} Gb/s`);
  const moved = Object.entries(hca.errors_moved ?? {}).map(([name, count]) => `${name} +${count}`);
  const facts = [hca.rate_gbps ? `of ${number(hca.rate_gbps)}` : "", hca.netdev, hca.estimate ? "estimated" : "", ...moved];
  text(rest, facts.filter(Boolean).join(" · "));
}

function drawRails(strip, hcas, width) {
  const links = hcas.length ? hcas : [null];
  strip.style.setProperty("--rails", String(width));
  keyed(strip, [...Array(width).keys()].map((i) => `rail ${i}`).concat(links.map((_, i) => `link ${i}`)), (key) => el("i", { class: key.split(" ")[0] }), (mark, key) => {
    const [kind, index] = key.split(" ");
    mark.style.setProperty("--at", index);
    if (kind !== "link") return;
    const hca = links[Number(index)];
    health(mark, hca ? portHealth(hca) : "none");
    mark.style.setProperty("--use", hca ? Math.min(1, Math.sqrt(use(hca))).toFixed(2) : "0");
  });
}

function drawGpus(place, gpus) {
  const [head, table] = place.children;
  shown(place, gpus.length > 0);
  if (!gpus.length) return;
  const known = gpus.filter((gpu) => gpu.utilisation !== undefined);
  const mean = known.length ? known.reduce((sum, gpu) => sum + gpu.utilisation, 0) / known.length : undefined;
  const sum = (field) => (gpus.some((gpu) => gpu[field] !== undefined) ? gpus.reduce((all, gpu) => all + (gpu[field] ?? 0), 0) : undefined);
  const hottest = Math.max(...gpus.map((gpu) => gpu.temperature_celsius ?? -Infinity));
  const words = [
    `${gpus.length} × ${gpus[0].name || "GPU"}`, percent(mean), gib(sum("memory_used_bytes"), sum("memory_total_bytes")),
    Number.isFinite(hottest) ? `${number(hottest)} °C` : "", sum("power_watts") === undefined ? "" : `${number(sum("power_watts"))} W`,
  ];
  text(head, words.filter(Boolean).join(" · "));
  if (!place.open) {
    place.ontoggle = () => place.open && drawTable(table, gpus);
    return;
  }
  drawTable(table, gpus);
}

function drawTable(table, gpus) {
  if (!table.tHead) {
    const names = ["GPU", "in use", "memory", "temp.", "power"].map((name) => el("th", { scope: "col" }, name));
    table.append(el("thead", {}, el("tr", {}, ...names)), el("tbody"));
  }
  keyed(table.tBodies[0], gpus.map((gpu) => gpu.index), (index) => el("tr", {}, el("th", { scope: "row" }, String(index)), ...[0, 1, 2, 3].map(() => el("td"))), (line, index) => {
    const gpu = gpus.find((one) => one.index === index);
    const [, busy, memory, heat, power] = line.children;
    meter(busy, gpu.utilisation, percent(gpu.utilisation));
    meter(memory, gpu.memory_total_bytes ? (gpu.memory_used_bytes ?? 0) / gpu.memory_total_bytes : undefined, gib(gpu.memory_used_bytes, gpu.memory_total_bytes));
    text(heat, gpu.temperature_celsius === undefined ? "–" : `${number(gpu.temperature_celsius)} °C`);
    text(power, gpu.power_watts === undefined ? "–" : `${number(gpu.power_watts)} W`);
  });
}

function meter(cell, share, words) {
  cell.classList.add("meter");
  cell.style.setProperty("--share", String(share ?? 0));
  text(cell, words);
}

// ---- many nodes

function tile(at) {
  const button = el("button", { type: "button" }, el("span", { class: "mark", "aria-hidden": "true" }), el("span", { class: "name" }), el("span", { class: "busy" }));
  button.addEventListener("click", () => {
    chosen = chosen === at ? "" : at;
    showCluster(latest, { nodes: {} });
  });
  return el("li", {}, button);
}

function drawTile(item, node, at) {
  const button = item.firstChild;
  const [, name, busy] = button.children;
  const { state } = node.node;
  const level = nodeHealth(state) === "good" && bad(node) ? "warn" : nodeHealth(state);
  health(button, level);
  item.dataset.chosen = String(at === chosen);
  attribute(button, "aria-pressed", String(at === chosen));
  text(name, node.node.name);
  const gpus = Object.values(node.gpus ?? {}).filter((gpu) => gpu.utilisation !== undefined);
  const mean = gpus.length ? gpus.reduce((sum, gpu) => sum + gpu.utilisation, 0) / gpus.length : undefined;
  text(busy, level === "good" && mean !== undefined ? percent(mean) : state);
}

function railsInSum(list, nodes, width) {
  const ports = nodes.map((node) => Object.keys(node.hcas ?? {}).sort((a, b) => a.localeCompare(b, "en", { numeric: true })).map((one) => node.hcas[one]));
  keyed(list, [...Array(width).keys()], () => el("li", {}, el("span", { class: "mark", "aria-hidden": "true" }), el("strong"), el("span")), (item, index) => {
    const here = ports.map((one) => one[index]).filter(Boolean);
    const down = here.filter((hca) => portHealth(hca) === "bad").length;
    const names = [...new Set(here.map((hca) => hca.device))];
    const sum = (field) => (here.some((hca) => hca[field] !== undefined) ? here.reduce((all, hca) => all + (hca[field] ?? 0), 0) : undefined);
    health(item, !here.length ? "none" : down ? "bad" : here.some((hca) => portHealth(hca) === "warn") ? "warn" : "good");
    text(item.children[1], names.length === 1 ? names[0] : `rail ${index + 1}`);
    text(item.children[2], here.length ? ` in ${short(sum("received_gbps"))}, out ${short(sum("sent_gbps"))} Gb/s · ${here.length - down} of ${here.length} ports active` : " no RDMA port");
  });
}

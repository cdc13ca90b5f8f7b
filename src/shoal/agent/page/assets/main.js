// The stream of the cluster's state: whole at first, then merge patches (RFC 7396); again and again where it breaks.

import { attribute, command, find, health, shown, text } from "./dom.js";
import { clock } from "./format.js";
import { showEngine } from "./engine.js";
import { showCluster } from "./cluster.js";
import { showLists } from "./lists.js";
import { startChat } from "./chat.js";

const QUIET = 8; // seconds without a word until what is shown counts as stale
let tree = null;
let heard = 0;
let stream = null;
let again = 0;
const chat = startChat();

function merge(target, patch) {
  for (const [name, value] of Object.entries(patch)) {
    if (name === "__proto__") continue;
    if (value === null) delete target[name];
    else if (typeof value === "object" && !Array.isArray(value) && typeof target[name] === "object") merge(target[name], value);
    else target[name] = value;
  }
}

function sentence(level, words, command_) {
  const place = find("#verdict");
  health(place, level);
  text(find(".words", place), words);
  document.title = `${{ good: "✓", busy: "…", warn: "▲", bad: "✕" }[level]} shoal`;
  const fix = find(".fix", place);
  shown(fix, Boolean(command_));
  if (fix.dataset.shown === command_) return;
  fix.dataset.shown = command_;
  fix.replaceChildren(...(command_ ? [command(command_)] : []));
}

function show(changed) {
  const verdict = tree.verdict ?? { level: "busy", words: "" };
  sentence(verdict.level, verdict.words, verdict.fix ?? "");
  showEngine(tree);
  showCluster(tree, changed);
  showLists(tree, changed);
  chat.ready(tree.status.engine);
}

function took(event, whole) {
  const document_ = JSON.parse(event.data);
  heard = Date.now() / 1000;
  if (whole) tree = document_;
  else if (tree) merge(tree, document_);
  else return;
  fresh(true);
  show(whole ? null : document_);
}

function fresh(is) {
  const live = find("#live");
  health(live, is ? "good" : "bad");
  attribute(document.body, "data-stale", String(!is));
  text(find(".words", live), is ? "live" : heard ? `stale since ${clock(heard)}, trying again` : "trying again");
  if (is) return;
  // What was well then may not be so now: the old sentence must not stand.
  sentence("bad", `The head's agent does not answer.${heard ? ` What is shown below was so at ${clock(heard)}.` : ""}`, "");
}

async function open() {
  clearTimeout(again);
  stream?.close();
  stream = new EventSource("/api/stream");
  stream.addEventListener("whole", (event) => took(event, true));
  stream.addEventListener("patch", (event) => took(event, false));
  stream.onerror = async () => {
    // A browser gives up for good after a refusal: was it the session, or is the agent just starting?
    if (stream.readyState !== EventSource.CLOSED) return;
    try {
      const answer = await fetch("/api/session", { cache: "no-store" });
      if (answer.status === 401) return location.assign("/login");
    } catch {
      // Not there yet.
    }
    again = setTimeout(open, 2000);
  };
}

setInterval(() => {
  if (!document.hidden && Date.now() / 1000 - heard > QUIET) fresh(false);
}, 1000);

// Who does not look costs nothing. Back in front, the page asks anew.
let away = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(away);
  if (document.hidden) away = setTimeout(() => stream?.close(), 30000);
  else if (stream?.readyState === EventSource.CLOSED) open();
});

open();

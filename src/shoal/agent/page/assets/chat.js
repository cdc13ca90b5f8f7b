// A conversation with the model, streamed through the head's agent: the browser never has the key.

import { el, find, shown, text } from "./dom.js";
import { number, seconds } from "./format.js";

export function startChat() {
  const place = find("#chat");
  const [form, talk, box] = [find("form", place), find(".talk", place), find("textarea", place)];
  const [send, stop, note] = [find("button[type=submit]", place), find(".stop", place), find("#chat-note", place)];
  const hint = note.textContent;
  const messages = [];
  let asking = null;
  let isReady = false;

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!asking && isReady && box.value.trim()) ask(box.value.trim());
  });
  box.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  stop.addEventListener("click", () => asking?.abort());

  function said(who, words) {
    const line = el("p", { class: who }, el("span", { class: "who" }, who === "user" ? "You" : "Model"), el("span", { class: "said" }, words));
    talk.append(line);
    talk.scrollTop = talk.scrollHeight;
    return line.lastChild;
  }

  async function ask(question) {
    asking = new AbortController();
    shown(stop, true);
    send.disabled = true;
    box.value = "";
    messages.push({ role: "user", content: question });
    said("user", question);
    const place = said("model", "");
    const told = { text: "", tokens: 0, began: performance.now(), first: 0 };
    try {
      await answer(messages.slice(-20), asking.signal, (piece, tokens) => {
        told.first ||= performance.now();
        told.tokens = tokens || told.tokens;
        told.text += piece;
        place.textContent = told.text;
        talk.scrollTop = talk.scrollHeight;
      });
      measured(told);
    } catch (error) {
      const words = asking.signal.aborted ? "stopped" : error.message;
      talk.append(el("p", { class: "problem", role: "alert" }, words));
    }
    if (told.text) messages.push({ role: "assistant", content: told.text });
    else messages.pop();
    asking = null;
    shown(stop, false);
    send.disabled = !isReady;
    talk.scrollTop = talk.scrollHeight;
  }

  function measured(told) {
    const whole = (performance.now() - told.began) / 1000;
    const words = [`${told.tokens} tokens in ${seconds(whole)}`, `first after ${seconds((told.first - told.began) / 1000)}`, `${number(told.tokens / whole, 1)} tokens/s`];
    talk.append(el("p", { class: "quiet measured" }, words.join(", ")));
  }

  return {
    ready(engine) {
      isReady = engine?.state === "ready";
      send.disabled = !isReady || asking !== null;
      text(note, isReady ? hint : "the engine is not ready");
    },
  };
}

async function answer(messages, signal, on) {
  const reply = await fetch("/api/chat", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ messages }),
    signal,
  });
  if (!reply.ok) throw new Error((await reply.json().catch(() => ({}))).error ?? `the agent answered ${reply.status}`);
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) piece(line.trimEnd(), on);
  }
}

function piece(line, on) {
  if (!line.startsWith("data: ") || line === "data: [DONE]") return;
  const told = JSON.parse(line.slice(6));
  if (told.error) throw new Error(String(told.error.message ?? told.error));
  const words = told.choices?.[0]?.delta?.content ?? "";
  const tokens = told.usage?.completion_tokens ?? 0;
  if (words || tokens) on(words, tokens);
}

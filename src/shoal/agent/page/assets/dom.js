// Elements are made here, and text is only ever text: nothing that a node, a log or a model says becomes markup.

export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export function find(selector, below = document) {
  return below.querySelector(selector);
}

// Touch the page only where it changes: a screen reader, a selection and a focus stay where they are.
export function text(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

export function attribute(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

export function shown(element, is) {
  if (element.hidden === is) element.hidden = !is;
}

// Children by key: those that stay keep their element.
export function keyed(parent, keys, make, update) {
  const known = (parent.known ??= new Map());
  for (const [key, element] of known) {
    if (!keys.includes(key)) {
      element.remove();
      known.delete(key);
    }
  }
  keys.forEach((key, place) => {
    let element = known.get(key);
    if (!element) known.set(key, (element = make(key)));
    if (parent.children[place] !== element) parent.insertBefore(element, parent.children[place] ?? null);
    update(element, key);
  });
}

export function health(element, level) {
  attribute(element, "data-health", level);
}

function select(element) {
  const range = document.createRange();
  range.selectNodeContents(element);
  const selection = getSelection();
  selection.removeAllRanges();
  selection.addRange(range);
}

// A command with a button that copies it. Without https a browser has no clipboard for us, but knows the old way.
export function command(words) {
  const code = el("code", {}, words);
  const button = el("button", { type: "button", class: "copy", "aria-label": `Copy the command ${words}` }, "Copy");
  button.addEventListener("click", async () => {
    try {
      if (navigator.clipboard) await navigator.clipboard.writeText(words);
      else {
        select(code);
        document.execCommand("copy");
      }
      button.textContent = "Copied";
    } catch {
      select(code);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  return el("span", { class: "command" }, code, button);
}

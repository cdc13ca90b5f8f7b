// Numbers and states in words.

const NONE = "–";

export function number(value, digits = 0) {
  return value === undefined ? NONE : value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits });
}

export function short(value) {
  return value === undefined ? NONE : number(value, value < 10 ? 2 : value < 100 ? 1 : 0);
}

export function seconds(value) {
  if (value === undefined) return NONE;
  if (value < 1) return `${number(value * 1000, value < 0.01 ? 1 : 0)} ms`;
  return `${number(value, value < 10 ? 2 : 1)} s`;
}

export function percent(value) {
  return value === undefined ? NONE : `${Math.round(value * 100)} %`;
}

export function gib(used, total) {
  if (used === undefined) return NONE;
  const of = total === undefined ? "" : ` / ${number(total / 2 ** 30, 0)}`;
  return `${number(used / 2 ** 30, 1)}${of} GiB`;
}

export function clock(at) {
  return new Date(at * 1000).toLocaleTimeString("en-GB");
}

// Colour is never alone: each level has its shape, and stands beside its word.
const NODE = {
  up: "good", starting: "busy", waiting: "busy", joining: "busy", draining: "warn", suspect: "warn",
  stopped: "bad", failed: "bad", lost: "bad",
};
const ENGINE = {
  ready: "good", waiting: "busy", starting: "busy", draining: "warn", restarting: "warn", stopping: "warn",
  unready: "bad", failed: "bad", stopped: "bad",
};

export const nodeHealth = (state) => NODE[state] ?? "warn";
export const engineHealth = (state) => ENGINE[state] ?? "warn";

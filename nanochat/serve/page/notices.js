// What the page has to say besides messages: one alert at a time, short notes, and figures of the last answer.

import { element } from "./dom.js";

const NOTE_MS = 10_000;

/** The alert above the field: what went wrong, and buttons that do something about it. */
export class Alert {
  /** `used()` is called when a button was pressed, which may have gone with the alert. */
  constructor(dom, used) {
    this._dom = dom;
    this._used = used;
    this._shown = "";
  }

  /** Show `{text, actions: [[name, what it does], …], kind}`, or nothing. */
  show(problem) {
    const shown = problem ? `${problem.text} ${problem.actions.map(([name]) => name)}` : "";
    this._actions = new Map(problem?.actions ?? []);
    if (shown === this._shown) return; // a screen reader reads an alert once
    this._shown = shown;
    this._dom.hidden = !problem;
    this._dom.replaceChildren();
    if (!problem) return;
    this._dom.className = problem.kind ?? "";
    const act = (name) => () => {
      this._actions.get(name)?.();
      this._used();
    };
    const buttons = problem.actions.map(([name]) =>
      element("button", { type: "button", class: "text-button", onclick: act(name) }, name),
    );
    this._dom.append(element("p", { dir: "auto" }, problem.text), element("div", { class: "buttons" }, ...buttons));
  }
}

/** Show a note for a while, with what can be done about it. */
export function note(dom, text, actions = [], keep = false) {
  const shown = element("div", { class: "note" }, element("p", { dir: "auto" }, text));
  const close = () => shown.remove();
  const all = keep ? [...actions, ["Dismiss", () => {}]] : actions;
  for (const [name, act] of all) {
    const onclick = () => {
      close();
      act();
    };
    shown.append(element("button", { type: "button", class: "text-button", onclick }, name));
  }
  dom.append(shown);
  if (!keep) setTimeout(close, NOTE_MS);
}

/** Return the figures of an answer in words. */
export function figures(message, longest) {
  if (!message || message.role !== "assistant") return "";
  const { usage, seconds, pieces } = message;
  const tokens = usage?.written ?? pieces ?? 0;
  const found = [];
  if (tokens > 1 && seconds > 0) found.push(`${speed((tokens - 1) / seconds)} tokens per second`);
  const used = usage ? usage.prompt + usage.written : null;
  if (Number.isFinite(used)) {
    const share = longest ? ` of ${longest.toLocaleString("en")} (${Math.min(100, Math.round((100 * used) / longest))} %)` : "";
    found.push(`context ${used.toLocaleString("en")}${share}`);
  }
  return found.join(" · ");
}

function speed(value) {
  return value >= 100 ? Math.round(value).toLocaleString("en") : value.toFixed(1);
}

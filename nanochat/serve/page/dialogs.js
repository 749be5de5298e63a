// The two dialogs: settings, and the key that a server may ask for.
// Not here: what can be set and its limits (`settings.js`).

import { element } from "./dom.js";
import { FIELDS, standardSettings, wrongIn } from "./settings.js";

/** Where the settings are changed; each change counts at once. */
export class SettingsDialog {
  constructor(settings, changed) {
    this._settings = settings;
    this._changed = changed;
    this._inputs = new Map();
    this._system = element("textarea", { id: "set-system", rows: 3, dir: "auto", maxLength: 8000 });
    this._system.addEventListener("input", () => this._set("system", this._system.value));
    const reset = element("button", { type: "button", class: "text-button", onclick: () => this._reset() }, "Reset all");
    const close = element("button", { type: "submit", class: "solid-button" }, "Close");
    const about = "Read by the model before the first message. Small models were rarely trained with one.";
    const form = element(
      "form",
      { method: "dialog" },
      element("h2", { id: "settings-title" }, "Settings"),
      row("System prompt", this._system, about),
      element("div", { class: "grid" }, ...FIELDS.map((field) => this._row(field))),
      element("div", { class: "buttons" }, reset, close),
    );
    form.noValidate = true;
    this.dom = element("dialog", { class: "dialog", "aria-labelledby": "settings-title" }, form);
    this.dom.addEventListener("close", () => this._show());
    closesOutside(this.dom);
    this._show();
  }

  /** Open the dialog. */
  open() {
    this._show();
    this.dom.showModal();
  }

  _row(field) {
    const input = element("input", {
      id: `set-${field.name}`, type: "number", min: field.least, max: field.most, step: field.step, placeholder: field.empty ?? "",
    }); // prettier-ignore
    const wrong = element("p", { class: "wrong", id: `wrong-${field.name}` });
    input.setAttribute("aria-errormessage", wrong.id);
    input.addEventListener("input", () => this._take(field, input, wrong));
    this._inputs.set(field.name, { field, input, wrong });
    return row(field.label, input, field.about, wrong);
  }

  _take(field, input, wrong) {
    const value = input.value === "" && !input.validity.badInput ? null : input.valueAsNumber;
    wrong.textContent = wrongIn(field, value);
    input.setAttribute("aria-invalid", String(Boolean(wrong.textContent)));
    if (!wrong.textContent) this._set(field.name, value);
  }

  _set(name, value) {
    this._settings[name] = value;
    this._changed();
  }

  _reset() {
    Object.assign(this._settings, standardSettings());
    this._changed();
    this._show();
  }

  _show() {
    this._system.value = this._settings.system;
    for (const { field, input, wrong } of this._inputs.values()) {
      input.value = this._settings[field.name] ?? "";
      input.setAttribute("aria-invalid", "false");
      wrong.textContent = "";
    }
  }
}

/** Asks for the API key. */
export class KeyDialog {
  constructor() {
    this._field = element("input", { id: "api-key", type: "password", autocomplete: "off", required: true });
    const save = element("button", { type: "submit", class: "solid-button" }, "Use this key");
    const cancel = element("button", { type: "button", class: "text-button", onclick: () => this.dom.close("") }, "Cancel");
    this._about = element("p", {}, "This server answers only with a key. It is kept until this tab closes.");
    const form = element("form", { method: "dialog" }, element("h2", { id: "key-title" }, "API key"), this._about);
    form.append(row("Key", this._field, ""), element("div", { class: "buttons" }, cancel, save));
    form.addEventListener("submit", () => (this.dom.returnValue = "key"));
    save.value = "key";
    this.dom = element("dialog", { class: "dialog small", "aria-labelledby": "key-title" }, form);
  }

  /** Return the key that the reader gives, or null. */
  async ask() {
    if (this.dom.open) return null; // somebody else has asked
    this._field.value = "";
    this.dom.returnValue = "";
    this.dom.showModal();
    await new Promise((resolve) => this.dom.addEventListener("close", resolve, { once: true }));
    const key = this._field.value.trim();
    this._field.value = "";
    return this.dom.returnValue === "key" && key ? key : null;
  }
}

function row(label, input, about, ...more) {
  const hint = element("p", { class: "about", id: `${input.id}-about` }, about);
  if (about) input.setAttribute("aria-describedby", hint.id);
  return element("div", { class: "row" }, element("label", { for: input.id }, label), input, ...(about ? [hint] : []), ...more);
}

function closesOutside(dialog) {
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
}

// Where a message is written: the field, Send and Stop, and the bar that says that an old message is edited.
// Not here: what sending does (`chat.js`).

import { element, icon } from "./dom.js";

const TALLEST = 0.4; // of the window

/** The form at the foot of the page. */
export class Composer {
  constructor(form, actions) {
    this._actions = actions;
    this._draft = "";
    this._running = false;
    this.field = element("textarea", {
      id: "message", rows: 1, placeholder: "Write a message", "aria-label": "Message", dir: "auto",
      autocomplete: "off", spellcheck: true, enterKeyHint: "send",
    }); // prettier-ignore
    this._send = element("button", { type: "submit", class: "main-button", "aria-label": "Send", title: "Send (Enter)" }, icon("send"));
    this._stop = element(
      "button",
      { type: "button", class: "main-button", "aria-label": "Stop", title: "Stop (Escape)", hidden: true, onclick: actions.stop },
      icon("stop"),
    );
    const cancel = element("button", { type: "button", class: "text-button", onclick: () => this.endEdit() }, "Cancel");
    this._bar = element("div", { class: "edit-bar", hidden: true });
    this._bar.append(element("span", {}, "Editing: what follows stays as another version."), cancel);
    form.append(this._bar, element("div", { class: "writing" }, this.field, this._send, this._stop));
    form.addEventListener("submit", (event) => this._submit(event));
    this.field.addEventListener("keydown", (event) => this._key(event));
    this.field.addEventListener("input", () => this._changed());
    addEventListener("resize", () => this._fit());
    this._changed();
  }

  /** Show Stop in place of Send. */
  running(running) {
    const focused = document.activeElement === this._stop || document.activeElement === this._send;
    this._running = running;
    this._send.hidden = running;
    this._stop.hidden = !running;
    if (focused) this.field.focus();
  }

  /** Put a message into the field; what was there comes back after it. */
  edit(text) {
    if (this._bar.hidden) this._draft = this.field.value;
    this._bar.hidden = false;
    this._write(text);
    this.field.focus();
  }

  /** Leave editing without sending. */
  endEdit() {
    if (this._bar.hidden) return;
    this._bar.hidden = true;
    this._write(this._draft);
    this._actions.editEnded();
    this.field.focus();
  }

  /** Put a text into the field if nothing is there: a message that could not be sent. */
  giveBack(text) {
    if (!this.field.value) this._write(text);
  }

  _submit(event) {
    event.preventDefault();
    const text = this.field.value.trim();
    if (!text || this._running) return;
    const edited = !this._bar.hidden;
    this._bar.hidden = true;
    this._write(edited ? this._draft : "");
    this._draft = "";
    this._actions.send(text);
    this.field.focus();
  }

  _key(event) {
    const composing = event.isComposing || event.keyCode === 229; // Enter ends the writing of a character
    if (event.key === "Enter" && !event.shiftKey && !composing) {
      event.preventDefault();
      this._send.form.requestSubmit();
    } else if (event.key === "Escape" && !composing && !this._running) this.endEdit();
    else if (event.key === "ArrowUp" && !this.field.value && !composing) {
      if (this._actions.editLast()) event.preventDefault();
    }
  }

  _write(text) {
    this.field.value = text;
    this._changed();
  }

  _changed() {
    this._send.disabled = !this.field.value.trim();
    this._fit();
  }

  _fit() {
    this.field.style.height = "auto";
    this.field.style.height = `${Math.min(this.field.scrollHeight, innerHeight * TALLEST)}px`;
  }
}

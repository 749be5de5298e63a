// One message on the page: its text, how it ended, and what can be done with it.
// Not here: the order of messages (`log_view.js`), what the buttons do (`chat.js`).

import { groupsOf } from "./answer.js";
import { copiedText } from "./conversation.js";
import { copyFrom, element, iconButton } from "./dom.js";
import { MarkdownView } from "./markdown_view.js";

const ENDINGS = new Map([
  ["length", "Cut off: it reached the longest answer, or the end of what the model can read."],
  ["stopped", "Stopped."],
  ["broken", "The answer broke off here."],
  ["failed", "No answer came."],
  ["running", "Not finished."],
]);

/** An article with one message. */
export class MessageView {
  constructor(message, actions) {
    this.message = message;
    this._actions = actions;
    this._groups = [];
    const user = message.role === "user";
    this._body = element("div", { class: "body", dir: "auto" });
    this._ending = element("p", { class: "ending", hidden: true });
    this._versions = element("span", { class: "versions" });
    this._dots = element("span", { class: "dots", "aria-hidden": "true" }, element("i"), element("i"), element("i"));
    const tools = element("div", { class: "tools" }, this._versions, this._copyButton(), this._ownButton(user));
    this.dom = element("article", { class: user ? "message you" : "message model", "aria-label": user ? "You" : "Model" });
    this.dom.append(this._body, this._dots, this._ending, tools);
  }

  /** Show the message as it is now; `running`: it is being written. */
  update(message, versions, running) {
    this.message = message;
    this.dom.classList.toggle("running", running);
    if (running) this.dom.setAttribute("aria-busy", "true");
    else this.dom.removeAttribute("aria-busy");
    this._running = running;
    this.draw();
    this._showVersions(versions);
    const ending = running || message.role === "user" ? undefined : ENDINGS.get(message.finish);
    this._ending.hidden = !ending;
    this._ending.textContent = ending ?? "";
  }

  /** Show the text that has come. */
  draw() {
    if (this.message.role === "user") {
      if (this._body.textContent !== this.message.text) this._body.textContent = this.message.text;
      return;
    }
    const groups = groupsOf(this.message.parts);
    this._dots.hidden = groups.length > 0;
    while (this._groups.length > groups.length) this._groups.pop().dom.remove(); // it is asked for anew
    groups.forEach((group, i) => this._group(group, i, this._running && i === groups.length - 1));
  }

  // Groups only grow at the end; what is already shown stays.
  _group(group, i, growing) {
    let view = this._groups[i];
    if (!view?.goesOnWith(group)) {
      const made = group.text === undefined ? new CalculatorView() : new TextView();
      if (view) view.dom.replaceWith(made.dom);
      else this._body.append(made.dom);
      this._groups[i] = view = made;
    }
    view.show(group, growing);
  }

  _showVersions(versions) {
    const place = versions.findIndex(({ id }) => id === this.message.id);
    if (versions.length < 2) return this._versions.replaceChildren();
    const step = (by) => () => this._actions.version(this.message, by);
    const [previous, next] = [iconButton("Previous version", "left", step(-1)), iconButton("Next version", "right", step(1))];
    previous.disabled = place === 0;
    next.disabled = place === versions.length - 1;
    this._versions.replaceChildren(previous, element("span", {}, `${place + 1}/${versions.length}`), next);
  }

  _copyButton() {
    const button = iconButton("Copy", "copy", () => copyFrom(button, copiedText(this.message)));
    return button;
  }

  _ownButton(user) {
    if (user) return iconButton("Edit", "edit", () => this._actions.edit(this.message));
    return iconButton("Regenerate", "again", () => this._actions.regenerate(this.message));
  }
}

class TextView {
  constructor() {
    this.dom = element("div", { class: "text" });
    this._markdown = new MarkdownView(this.dom);
    this._taken = "";
  }

  goesOnWith({ text }) {
    return text !== undefined && text.length >= this._taken.length && text.startsWith(this._taken);
  }

  show({ text }) {
    if (text.length === this._taken.length) return;
    this._markdown.append(text.slice(this._taken.length));
    this._taken = text;
    this._markdown.draw();
  }
}

class CalculatorView {
  constructor() {
    this._summary = element("summary", { dir: "auto" });
    this._asked = element("code");
    this._result = element("code");
    const asked = element("p", {}, "The model asked for ", this._asked);
    this._answer = element("p", {}, "and read ", this._result);
    this.dom = element("details", { class: "calculator" }, this._summary, asked, this._answer);
  }

  goesOnWith({ text }) {
    return text === undefined;
  }

  show({ expression, result }, growing) {
    const ending = result === null ? (growing ? " …" : ", no result") : ` = ${result}`;
    this._summary.textContent = `Calculator: ${expression}${ending}`;
    this._asked.textContent = expression || "nothing";
    this._result.textContent = result ?? "";
    this._answer.hidden = result === null;
  }
}

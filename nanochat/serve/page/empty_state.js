// What is there before the first message: who answers, and a few messages to begin with.

import { element } from "./dom.js";

const EXAMPLES = [
  ["Hello! Who are you?", "Say hello"],
  ["What is 3 plus 4?", "Use the calculator"],
  ["How many letters r are in strawberry?", "Count letters"],
  ["What is the capital of Norway?", "Ask for a fact"],
];

/** Fill the empty state; `send` is called with the example that is chosen. */
export class EmptyState {
  constructor(dom, send) {
    this._dom = dom;
    this._name = element("bdi");
    const examples = EXAMPLES.map(([text, about]) =>
      element(
        "li",
        {},
        element("button", { type: "button", class: "example", onclick: () => send(text) }, element("span", {}, text), element("small", {}, about)),
      ),
    );
    this._about = element("p", { class: "lead" });
    dom.append(element("h2", {}, "Talk to it."), this._about, element("ul", { class: "examples" }, ...examples));
    this.show("");
  }

  /** Name the model. */
  show(id) {
    this._name.textContent = id;
    const about = "a small model. It knows little and makes things up, but it can count with a calculator.";
    this._about.replaceChildren(...(id ? [this._name, ` is ${about}`] : [`This is ${about}`]));
  }
}

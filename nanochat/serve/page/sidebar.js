// The list of conversations: open, new, rename, export, delete; a drawer on a phone.
// Not here: what these do to conversations (`chat.js`).

import { element, icon, iconButton } from "./dom.js";

/** The navigation. */
export class Sidebar {
  constructor({ nav, shade, main }, actions, foot) {
    [this._nav, this._shade, this._main, this._actions] = [nav, shade, main, actions];
    this._items = new Map();
    this._placing = false;
    this._newButton = element("button", { type: "button", class: "new", onclick: actions.create }, icon("plus"), "New conversation");
    this._list = element("ul", { class: "list" });
    const hide = iconButton("Hide", "close", () => this.close(), { class: "icon-button hide" });
    const head = element("div", { class: "brand" }, element("span", { class: "name" }, "nanochat"), hide);
    nav.append(head, this._newButton, this._list, foot);
    this.menu = iconButton("Menu", "menu", () => this.open(), { class: "icon-button menu", "aria-expanded": "false", "aria-controls": nav.id });
    shade.addEventListener("click", () => this.close());
    const onKey = (event) => {
      if (event.key !== "Escape" || !this.isOpen()) return;
      event.stopPropagation();
      this.close();
    };
    document.addEventListener("keydown", onKey, true); // first: a drawer that still slides in takes no focus
    matchMedia("(min-width: 761px)").addEventListener("change", () => this.close());
  }

  /** Show these conversations, in this order. */
  show(conversations, currentId, runningIds) {
    const kept = new Set(conversations.map(({ id }) => id));
    for (const [id, item] of this._items) {
      if (kept.has(id)) continue;
      item.dom.remove();
      this._items.delete(id);
    }
    conversations.forEach((conversation, i) => {
      const item = this._item(conversation);
      item.title.textContent = conversation.title || "Untitled";
      item.title.title = conversation.title;
      item.dom.classList.toggle("running", runningIds.has(conversation.id));
      if (conversation.id === currentId) item.title.setAttribute("aria-current", "true");
      else item.title.removeAttribute("aria-current");
      if (this._list.children[i] !== item.dom) this._place(item.dom, this._list.children[i] ?? null);
    });
    this._list.hidden = !conversations.length;
  }

  /** Open the drawer of a phone. */
  open() {
    this._nav.classList.add("open");
    this._shade.hidden = false;
    this._main.inert = true;
    this.menu.setAttribute("aria-expanded", "true");
    this._newButton.focus();
  }

  /** Close the drawer. */
  close() {
    if (!this.isOpen()) return;
    this._nav.classList.remove("open");
    this._shade.hidden = true;
    this._main.inert = false;
    this.menu.setAttribute("aria-expanded", "false");
    this.menu.focus();
  }

  /** Return whether the drawer is open. */
  isOpen() {
    return this._nav.classList.contains("open");
  }

  /** Put the focus where a deleted conversation was. */
  focusAfterDelete(place) {
    const items = this._list.querySelectorAll(".title");
    (items[Math.min(place, items.length - 1)] ?? this._newButton).focus();
  }

  // Moving an element takes the focus from it, which is not the reader's doing.
  _place(dom, before) {
    const focused = dom.contains(document.activeElement) ? document.activeElement : null;
    this._placing = true;
    this._list.insertBefore(dom, before);
    focused?.focus();
    this._placing = false;
  }

  _item({ id }) {
    if (!this._items.has(id)) this._items.set(id, this._made(id));
    return this._items.get(id);
  }

  _made(id) {
    const title = element("button", { type: "button", class: "title", id: `title-${id}`, onclick: () => this._actions.open(id) });
    const about = { "aria-describedby": title.id };
    const choices = element("div", { class: "choices", hidden: true });
    const item = { title, dom: element("li", { class: "item" }) };
    const exports = iconButton("Export", "save", () => toggle(exports, choices), { ...about, "aria-expanded": "false" });
    for (const [kind, name] of [["json", "JSON"], ["markdown", "Markdown"]]) {
      const choose = () => {
        toggle(exports, choices);
        exports.focus();
        this._actions.download(id, kind);
      };
      choices.append(element("button", { type: "button", class: "text-button", onclick: choose }, name));
    }
    const tools = element(
      "span",
      { class: "tools" },
      iconButton("Rename", "edit", () => this._rename(id, item), about),
      exports,
      iconButton("Delete", "remove", () => this._actions.remove(id, [...this._list.children].indexOf(item.dom)), about),
    );
    item.dom.append(title, tools, choices);
    return item;
  }

  _rename(id, item) {
    const field = element("input", { class: "rename", value: item.title.textContent, maxLength: 200, "aria-label": "Title", dir: "auto" });
    const before = field.value;
    let done = false;
    const finish = (keep) => {
      if (done) return;
      done = true;
      const title = field.value.trim();
      field.replaceWith(item.title);
      item.dom.classList.remove("renaming");
      if (keep && title && title !== before) this._actions.rename(id, title);
      item.title.focus();
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.isComposing) finish(true);
      else if (event.key === "Escape") {
        event.stopPropagation();
        finish(false);
      }
    });
    field.addEventListener("blur", () => this._placing || finish(true));
    item.dom.classList.add("renaming");
    item.title.replaceWith(field);
    field.select();
    field.focus();
  }
}

function toggle(button, choices) {
  choices.hidden = !choices.hidden;
  button.setAttribute("aria-expanded", String(!choices.hidden));
}

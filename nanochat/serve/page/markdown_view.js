// Shows Markdown as elements while it streams: only what changed at its end is made again.
//
// Elements are made one by one and text goes into text nodes, so nothing in a text can become markup.
// Not here: what the text means (`markdown_blocks.js`, `markdown_inline.js`), colours of code (`highlight.js`).

import { copyFrom, element, icon } from "./dom.js";
import { colouredLine, languageOf } from "./highlight.js";
import { BlockParser } from "./markdown_blocks.js";
import { inlineEvents } from "./markdown_inline.js";

const DEEPEST_EMPHASIS = 12;
const MAY_CHANGE = 2; // blocks at the end: the one before the last goes on if the last was read too early

/** One text as elements inside `root`. */
export class MarkdownView {
  constructor(root) {
    this._parser = new BlockParser();
    this._root = new ContainerView(this._parser.root, root);
  }

  /** Take more text; nothing is shown until `draw`. */
  append(text) {
    this._parser.push(text);
  }

  /** Show what has come. */
  draw() {
    this._parser.preview();
    this._root.sync(this._parser.root);
  }
}

class ContainerView {
  constructor(node, dom) {
    this.kind = node.kind;
    this.dom = dom ?? containerElement(node);
    this._type = node.type;
    this._start = node.start;
    this._views = [];
  }

  sync(node) {
    const { children } = node;
    while (this._views.length > children.length) this._views.pop().dom.remove();
    for (let i = Math.max(0, this._views.length - MAY_CHANGE); i < children.length; i++) this._child(children[i], i);
  }

  _child(node, i) {
    const view = this._views[i];
    if (view?.kind === node.kind && view.shows(node)) return view.sync(node);
    const made = viewOf(node);
    if (view) view.dom.replaceWith(made.dom);
    else this.dom.append(made.dom);
    this._views[i] = made;
    made.sync(node);
  }

  shows(node) {
    return node.type === this._type && node.start === this._start;
  }
}

class TextView {
  constructor(node) {
    this.kind = node.kind;
    this._level = node.level;
    this._goesOn = node.goesOn;
    const tag = node.kind === "heading" ? `h${Math.min(6, node.level + 2)}` : "p";
    this.dom = element(tag, { class: node.goesOn ? "goes-on" : "" });
  }

  shows(node) {
    return node.level === this._level && node.goesOn === this._goesOn;
  }

  sync(node) {
    const text = node.lines.join("\n");
    if (text === this._text) return;
    this._text = text;
    fill(this.dom, text);
  }
}

class CodeView {
  constructor(node) {
    this.kind = node.kind;
    this._name = node.language;
    this._language = languageOf(node.language);
    this._done = 0; // chunks whose colours are final
    this._open = null;
    this._node = node;
    this._last = element("span");
    this._code = element("code", {}, this._last);
    const copy = element("button", { type: "button", class: "copy-code", onclick: () => copyFrom(copy, this._text()) });
    copy.append(icon("copy"), "Copy code");
    const head = element("div", { class: "code-head" }, element("span", {}, node.language || "text"), copy);
    const pre = element("pre", { dir: "ltr", tabIndex: 0, role: "group", "aria-label": "Code" }, this._code);
    this.dom = element("div", { class: "code" }, head, pre);
  }

  shows(node) {
    return node.language === this._name;
  }

  sync(node) {
    this._node = node;
    const final = node.lines.length - 1; // the last one may still grow
    for (; this._done < final; this._done++) {
      this._last.before(this._coloured(node.lines[this._done], true));
    }
    this._last.replaceChildren(final >= 0 ? this._coloured(node.lines[final], false) : "");
  }

  _coloured(chunk, final) {
    if (!this._language) return document.createTextNode(chunk);
    const [tokens, open] = colouredLine(chunk, this._language, this._open);
    if (final) this._open = open;
    const made = document.createDocumentFragment();
    for (const { kind, text } of tokens) made.append(kind ? element("span", { class: `t-${kind}` }, text) : text);
    return made;
  }

  _text() {
    return this._node.lines.join("").replace(/\n$/, "");
  }
}

class TableView {
  constructor(node) {
    this.kind = node.kind;
    this._head = node.head.join("\n");
    this._body = new ContainerView({ kind: "body" }, element("tbody"));
    const head = element("tr", {}, ...node.head.map((cell, i) => cellElement("th", cell, node.align[i])));
    const table = element("table", {}, element("thead", {}, head), this._body.dom);
    this._body.align = node.align;
    this.dom = element("div", { class: "table", tabIndex: 0, role: "group", "aria-label": "Table" }, table);
  }

  shows(node) {
    return node.head.join("\n") === this._head;
  }

  sync(node) {
    for (const row of node.children) row.align = node.align;
    this._body.sync(node);
  }
}

class RowView {
  constructor(node) {
    this.kind = node.kind;
    this._cells = node.cells.join("\n");
    this.dom = element("tr", {}, ...node.cells.map((cell, i) => cellElement("td", cell, node.align[i])));
  }

  shows(node) {
    return node.cells.join("\n") === this._cells;
  }

  sync() {}
}

class RuleView {
  constructor() {
    this.kind = "rule";
    this.dom = element("hr");
  }

  shows() {
    return true;
  }

  sync() {}
}

const VIEWS = { paragraph: TextView, heading: TextView, code: CodeView, table: TableView, row: RowView, rule: RuleView };

function viewOf(node) {
  return new (VIEWS[node.kind] ?? ContainerView)(node);
}

function containerElement(node) {
  if (node.kind === "quote") return element("blockquote", { dir: "auto" });
  if (node.kind === "item") return element("li");
  return node.ordered ? element("ol", { start: node.start, dir: "auto" }) : element("ul", { dir: "auto" });
}

function cellElement(tag, text, align) {
  const cell = element(tag, { class: align ? `align-${align}` : "" });
  if (tag === "th") cell.scope = "col";
  fill(cell, text);
  return cell;
}

// Put a line of Markdown into an element.
function fill(dom, text) {
  const made = document.createDocumentFragment();
  const path = [made];
  let tooDeep = 0;
  for (const event of inlineEvents(text)) {
    if (event.text !== undefined) path.at(-1).append(event.text);
    else if (event.code !== undefined) path.at(-1).append(element("code", {}, event.code));
    else if (event.newline) path.at(-1).append("\n"); // the style keeps line ends
    else if (event.close) {
      if (tooDeep) tooDeep -= 1;
      else closed(path.pop());
    } else if (path.length > DEEPEST_EMPHASIS) tooDeep += 1;
    else {
      const inner = event.open === "link" ? link(event.address) : element(event.open);
      path.at(-1).append(inner);
      path.push(inner);
    }
  }
  dom.replaceChildren(made);
}

function link(address) {
  return element("a", { href: address, target: "_blank", rel: "noopener noreferrer nofollow", title: address });
}

// A link whose text does not show where it leads gets its target beside it.
function closed(dom) {
  if (dom.localName !== "a") return;
  const target = dom.protocol === "mailto:" ? dom.pathname : dom.host;
  const shown = dom.textContent.toLowerCase().replace(/^(?:https?:\/\/|mailto:)/, "");
  const rest = shown.startsWith(target.toLowerCase()) ? shown.slice(target.length) : null;
  if (rest === null || !/^(?:$|[:/?#])/.test(rest)) dom.after(element("span", { class: "target" }, ` (${target})`));
}

// Markdown as it streams: lines become a tree of blocks (paragraphs, headings, lists, quotes, code, tables).
//
// Each whole line is read once. The line that has not ended yet is read as if it had, and taken back when more
// of it comes. Every leaf is bounded: a paragraph that grows beyond LONGEST_LEAF goes on in another, so that
// what has to be read again at each step is bounded too. Containers nest DEEPEST deep, deeper markers are text.
// Raw HTML, indented code, reference links and footnotes do not exist here: they are text.
// Not here: what stands inside a line (`markdown_inline.js`), elements (`markdown_view.js`).

export const LONGEST_LEAF = 4096;
export const DEEPEST = 8;
const MOST_COLUMNS = 64;
const LONGEST_RULE = 200;

const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+|$)/;
const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^`\n]*)$/;
const MARKER = /^( *)([-*+]|\d{1,9}[.)])( +|$)/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const DELIMITER_CELL = /^:?-+:?$/;

/** Reads Markdown piece by piece; `root` is the tree of what has come. */
export class BlockParser {
  constructor() {
    this.root = { kind: "root", children: [] };
    this._stack = [{ node: this.root }];
    this._leaf = null;
    this._fence = null; // of the open code block: its character, length and indentation
    this._rest = ""; // of the line that has not ended
    this._torn = false; // that line is the rest of one that was too long
    this._undo = null; // takes back what the unfinished line did, last first
    this._before = null;
  }

  /** Take more text. */
  push(text) {
    this._takeBack();
    let from = 0;
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n", from)) {
      this._rest += text.slice(from, end);
      this._tear();
      const line = this._rest.endsWith("\r") ? this._rest.slice(0, -1) : this._rest;
      this._take(line, "\n");
      this._rest = "";
      this._torn = false;
      from = end + 1;
    }
    this._rest += text.slice(from);
    this._tear();
  }

  /** Read the unfinished line as if it had ended; `push` takes that back. */
  preview() {
    if (this._undo || !this._rest) return;
    this._before = [this._stack.slice(), this._leaf, this._fence];
    this._undo = [];
    this._take(this._rest, "");
  }

  _takeBack() {
    if (!this._undo) return;
    for (const undo of this._undo.reverse()) undo();
    [this._stack, this._leaf, this._fence] = this._before;
    this._undo = null;
  }

  // A line that is too long is cut at its last space, or anywhere between two characters.
  _tear() {
    let from = 0;
    while (this._rest.length - from > LONGEST_LEAF) {
      const space = this._rest.lastIndexOf(" ", from + LONGEST_LEAF);
      let cut = space > from + LONGEST_LEAF / 2 ? space + 1 : from + LONGEST_LEAF;
      const code = this._rest.charCodeAt(cut - 1);
      if (code >= 0xd800 && code < 0xdc00) cut -= 1; // half of a surrogate pair
      this._take(this._rest.slice(from, cut), "");
      this._torn = true;
      from = cut;
    }
    if (from) this._rest = this._rest.slice(from);
  }

  _take(line, end) {
    if (!this._torn) this._line(line, end);
    else if (this._leaf?.kind === "code") this._extend(this._leaf, line + end);
    else if (line) this._open({ kind: "paragraph", lines: [line], size: line.length, goesOn: true });
  }

  _line(line, end) {
    let rest = widened(line);
    let depth = 1;
    for (; depth < this._stack.length; depth++) {
      const inner = this._inside(this._stack[depth], rest);
      if (inner === null) break;
      rest = inner;
    }
    const whole = depth === this._stack.length;
    if (this._leaf?.kind === "code" && whole) return this._code(rest, end);
    if (isBlank(rest)) return this._blank(depth);
    return this._block(rest, depth, whole);
  }

  // What of a line is inside an open container, or null where the line ends it.
  _inside(container, rest) {
    if (container.node.kind === "list") return rest;
    if (container.node.kind === "quote") {
      const marker = QUOTE.exec(rest);
      return marker && rest.slice(marker[0].length);
    }
    if (isBlank(rest)) return rest;
    const indent = indentOf(rest);
    return indent >= container.least ? rest.slice(Math.min(indent, container.content)) : null;
  }

  _blank(depth) {
    if (depth < this._stack.length) this._closeTo(depth);
    this._leaf = null;
  }

  _block(line, matched, all) {
    let [rest, depth, whole] = [line, matched, all];
    for (;;) {
      if (this._fenceOpens(rest, depth) || this._heading(rest, depth) || this._rule(rest, depth)) return;
      const inner = this._quote(rest, depth) ?? this._item(rest, depth);
      if (inner === null) break;
      [rest, depth, whole] = [inner, this._stack.length, true];
      if (isBlank(rest)) return;
    }
    if (this._leaf?.kind === "paragraph" && !whole) return this._more(rest); // goes on without its markers
    this._closeTo(depth, whole);
    if (this._leaf?.kind === "table" && this._row(rest)) return;
    if (this._leaf?.kind !== "paragraph") {
      this._open({ kind: "paragraph", lines: [rest.trimStart()], size: rest.length });
    } else if (!this._tableBegins(rest)) this._more(rest);
  }

  _quote(rest, depth) {
    const marker = QUOTE.exec(rest);
    if (!marker || this._nesting(depth) >= DEEPEST) return null;
    this._closeTo(depth);
    this._enter({ kind: "quote", children: [] }, {});
    return rest.slice(marker[0].length);
  }

  _nesting(depth) {
    return this._stack.slice(0, depth).filter(({ node }) => node.kind === "quote" || node.kind === "item").length;
  }

  _fenceOpens(rest, depth) {
    const fence = FENCE.exec(rest);
    if (!fence) return false;
    this._closeTo(depth);
    const language = fence[2].trim().split(/[\s{,]/, 1)[0].slice(0, 40);
    this._open({ kind: "code", language, lines: [] });
    this._fence = { mark: fence[1][0], length: fence[1].length, indent: indentOf(rest) };
    return true;
  }

  _code(rest, end) {
    const { mark, length, indent } = this._fence;
    const closing = rest.trim();
    if (closing.length >= length && indentOf(rest) < 4 && closing === mark.repeat(closing.length)) {
      this._leaf = null;
      return;
    }
    this._extend(this._leaf, rest.slice(Math.min(indentOf(rest), indent)) + end);
  }

  _heading(rest, depth) {
    const heading = HEADING.exec(rest);
    if (!heading) return false;
    this._closeTo(depth);
    const text = rest.slice(heading[0].length).trim().replace(/(?:^|[ \t])#{1,40}$/, "");
    this._open({ kind: "heading", level: heading[1].length, lines: [text] });
    this._leaf = null;
    return true;
  }

  _rule(rest, depth) {
    if (rest.length > LONGEST_RULE || !RULE.test(rest)) return false;
    this._closeTo(depth);
    this._open({ kind: "rule" });
    this._leaf = null;
    return true;
  }

  // Return what stands in a list item that begins here, or null.
  _item(rest, depth) {
    const marker = MARKER.exec(rest);
    if (!marker || this._nesting(depth) >= DEEPEST) return null;
    const [all, before, mark, after] = marker;
    const ordered = mark.length > 1;
    const type = ordered ? mark.at(-1) : mark;
    const parent = this._stack[depth - 1].node;
    const goesOn = parent.kind === "list" && parent.type === type;
    if (this._leaf?.kind === "paragraph" && !goesOn && (all.length === rest.length || (ordered && mark !== `1${type}`))) {
      return null; // in the middle of a paragraph a year with a full stop is not a list
    }
    if (goesOn) this._cut(depth);
    else {
      this._closeTo(depth);
      this._enter({ kind: "list", ordered, type, start: ordered ? Number.parseInt(mark, 10) : 1, children: [] }, {});
    }
    const space = after.length > 4 ? 1 : Math.max(after.length, 1);
    const indent = before.length;
    this._enter({ kind: "item", children: [] }, { least: indent + 2, content: indent + mark.length + space });
    return rest.slice(Math.min(indent + mark.length + space, rest.length));
  }

  _tableBegins(rest) {
    const lines = this._leaf.lines;
    const align = alignments(rest);
    if (!align || this._leaf.goesOn) return false;
    const head = cells(lines.at(-1));
    if (head.length !== align.length || !lines.at(-1).includes("|")) return false;
    const paragraph = this._leaf;
    if (lines.length === 1) this._drop(paragraph);
    else this._shorten(paragraph);
    this._open({ kind: "table", align, head, children: [] });
    return true;
  }

  _row(rest) {
    if (!rest.includes("|")) {
      this._leaf = null;
      return false;
    }
    this._add(this._leaf, { kind: "row", cells: cells(rest).slice(0, this._leaf.align.length) });
    return true;
  }

  _more(line) {
    if (this._leaf.size + line.length > LONGEST_LEAF) {
      this._open({ kind: "paragraph", lines: [line], size: line.length, goesOn: true });
    } else this._extend(this._leaf, line);
  }

  // Close the containers from `depth` on, and the list whose items end here.
  _closeTo(depth, keepsLeaf = false) {
    if (!keepsLeaf || depth < this._stack.length) this._leaf = null;
    this._stack.length = depth;
    if (this._stack.at(-1).node.kind === "list") this._stack.length -= 1;
  }

  _cut(depth) {
    this._leaf = null;
    this._stack.length = depth;
  }

  _enter(node, container) {
    this._add(this._stack.at(-1).node, node);
    this._stack.push({ node, ...container });
    this._leaf = null;
  }

  _open(leaf) {
    this._add(this._stack.at(-1).node, leaf);
    this._leaf = leaf;
  }

  _add(parent, node) {
    parent.children.push(node);
    this._undo?.push(() => parent.children.pop());
  }

  _drop(node) {
    const siblings = this._stack.at(-1).node.children;
    siblings.pop();
    this._undo?.push(() => siblings.push(node));
  }

  _extend(leaf, line) {
    leaf.lines.push(line);
    leaf.size = (leaf.size ?? 0) + line.length + 1;
    this._undo?.push(() => {
      leaf.lines.pop();
      leaf.size -= line.length + 1;
    });
  }

  _shorten(leaf) {
    const line = leaf.lines.pop();
    this._undo?.push(() => leaf.lines.push(line));
  }
}

function isBlank(line) {
  return !/\S/.test(line);
}

function indentOf(line) {
  return /^ */.exec(line)[0].length;
}

// Tabs at the beginning of a line as spaces.
function widened(line) {
  return /^ *\t/.test(line) ? line.replace(/^[ \t]+/, (space) => space.replaceAll("\t", "    ")) : line;
}

// The cells of a row: split at bars that are neither escaped nor in a code span.
function cells(line) {
  const found = [];
  let cell = "";
  let code = false;
  for (const character of line.trim().replace(/^\|/, "")) {
    if (character === "`") code = !code;
    if (character === "|" && cell.endsWith("\\")) cell = `${cell.slice(0, -1)}|`;
    else if (character === "|" && !code && found.length < MOST_COLUMNS) {
      found.push(cell.trim());
      cell = "";
    } else cell += character;
  }
  if (cell.trim()) found.push(cell.trim());
  return found;
}

function alignments(line) {
  if (!line.includes("-") || !/^[-|: \t]+$/.test(line) || !line.includes("|")) return null;
  const found = cells(line);
  if (!found.every((cell) => DELIMITER_CELL.test(cell))) return null;
  return found.map((cell) => {
    if (cell.endsWith(":")) return cell.startsWith(":") ? "center" : "right";
    return cell.startsWith(":") ? "left" : "";
  });
}

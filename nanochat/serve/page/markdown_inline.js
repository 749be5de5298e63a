// What stands inside a line of Markdown: emphasis, code, links. Text becomes a flat list of events.
//
// `{text}`, `{code}`, `{newline}`, `{open: "em"|"strong"|"del"|"link", address}` and `{close}`; every open has its
// close. Linear: each character is looked at a bounded number of times, whatever the text. Addresses are those of
// http, https and mailto, nothing else becomes a link. Entities and HTML are text.
// Not here: elements (`markdown_view.js`).

const PLAIN = /[^\\`*_~!\[\]<hH\n]+|[hH]/y;
const BARE_ADDRESS = /https?:\/\/[^\s<>"`*()[\]\\]+/iy;
const BRACED_ADDRESS = /<((?:https?:\/\/|mailto:)[^\s<>]+)>/iy;
const LONGEST_ADDRESS = 2048;
const MOST_PARENTHESES = 8;
const SPACE = /^\s$/u;
const PUNCTUATION = /^[\p{P}\p{S}]$/u;

/** How many characters and delimiters were looked at since the page began: what a test of linearity counts. */
export const work = { steps: 0 };

/** Return the events of a text. */
export function inlineEvents(text) {
  return new InlineReader(text).read();
}

/** Return an address that is safe to follow, or null. */
export function safeAddress(address) {
  if (!/^(?:https?:\/\/|mailto:)/i.test(address) || /[\s\p{C}]/u.test(address)) return null;
  try {
    const url = new URL(address);
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

class InlineReader {
  constructor(text) {
    this.text = text;
    this.at = 0;
    this.tokens = [];
    this.delimiters = [];
    this.brackets = [];
    this.ticks = null;
  }

  read() {
    while (this.at < this.text.length) {
      work.steps += 1;
      const character = this.text[this.at];
      if (character === "\\") this._escape();
      else if (character === "`") this._code();
      else if (character === "*" || character === "_" || character === "~") this._delimiter(character);
      else if (character === "[") this._bracket();
      else if (character === "]") this._closeBracket();
      else if (character === "<") this._braced();
      else if (character === "\n") this._newline();
      else if (character === "h" || character === "H") this._bare();
      else if (character === "!") this._text("!");
      else this._plain();
    }
    pairUp(this.delimiters);
    return written(this.tokens);
  }

  _text(text) {
    this.tokens.push({ text });
    this.at += text.length;
  }

  _plain() {
    PLAIN.lastIndex = this.at;
    this._text(PLAIN.exec(this.text)[0]);
  }

  _newline() {
    this.tokens.push({ newline: true });
    this.at += 1;
  }

  _escape() {
    const next = this.text[this.at + 1];
    if (next === undefined || !/[!-/:-@[-`{-~]/.test(next)) return this._text("\\");
    this.tokens.push({ text: next });
    this.at += 2;
  }

  _code() {
    this.ticks ??= tickRuns(this.text);
    const length = runLength(this.text, this.at);
    const runs = this.ticks.get(length) ?? { places: [], next: 0 };
    while (runs.next < runs.places.length && runs.places[runs.next] <= this.at) runs.next += 1;
    const end = runs.places[runs.next];
    if (end === undefined) return this._text("`".repeat(length));
    const inner = this.text.slice(this.at + length, end).replaceAll("\n", " ");
    this.tokens.push({ code: /^ .*\S.* $/.test(inner) ? inner.slice(1, -1) : inner });
    this.at = end + length;
  }

  _delimiter(character) {
    const start = this.at;
    const length = runLength(this.text, start);
    const before = this.text[start - 1] ?? " ";
    const after = this.text[start + length] ?? " ";
    const opens = flanks(before, after);
    const closes = flanks(after, before);
    const word = character === "_";
    const token = {
      mark: character,
      count: length,
      length,
      canOpen: opens && (!word || !closes || PUNCTUATION.test(before)),
      canClose: closes && (!word || !opens || PUNCTUATION.test(after)),
      opens: [],
      closes: [],
    };
    this.at += length;
    this.tokens.push(token);
    if (token.canOpen || token.canClose) this.delimiters.push(token);
  }

  _bracket() {
    this.brackets.push({ token: this.tokens.length, delimiter: this.delimiters.length });
    this._text("[");
  }

  _closeBracket() {
    const bracket = this.brackets.pop();
    const target = bracket && this.text[this.at + 1] === "(" ? this._target(this.at + 2) : null;
    const address = target && safeAddress(target.address);
    if (!address) return this._text("]");
    pairUp(this.delimiters.splice(bracket.delimiter));
    for (let i = bracket.token + 1; i < this.tokens.length; i++) {
      if (this.tokens[i].bare) this.tokens[i] = { text: this.tokens[i].bare }; // a link holds no link
      work.steps += 1;
    }
    if (this.tokens[bracket.token - 1]?.text === "!") this.tokens[bracket.token - 1] = { text: "" };
    this.tokens[bracket.token] = { open: "link", address };
    this.tokens.push({ close: true });
    this.brackets = [];
    this.at = target.end;
  }

  // Read `address "title")`; bounded, and an address crosses few parentheses.
  _target(from) {
    const limit = Math.min(this.text.length, from + LONGEST_ADDRESS);
    let at = from;
    let depth = 0;
    for (let crossed = 0; at < limit; at++) {
      const character = this.text[at];
      work.steps += 1;
      if (character <= " ") break;
      if (character === "(" && ++crossed && ++depth > MOST_PARENTHESES) return null;
      if (crossed > MOST_PARENTHESES) return null;
      if (character === ")" && depth-- === 0) break;
    }
    const address = this.text.slice(from, at).replace(/^<(.*)>$/, "$1");
    const end = this._afterTitle(at);
    return end === null ? null : { address, end };
  }

  _afterTitle(at) {
    if (this.text[at] === ")") return at + 1;
    const title = / +(?:"[^"\n]{0,300}"|'[^'\n]{0,300}') *\)/y;
    title.lastIndex = at;
    const found = title.exec(this.text);
    work.steps += found ? found[0].length : 1;
    return found ? title.lastIndex : null;
  }

  _braced() {
    BRACED_ADDRESS.lastIndex = this.at;
    const found = BRACED_ADDRESS.exec(this.text);
    const address = found && safeAddress(found[1]);
    if (!address) return this._text("<");
    this.tokens.push({ bare: found[1], address });
    this.at += found[0].length;
  }

  _bare() {
    BARE_ADDRESS.lastIndex = this.at;
    const found = /\w/.test(this.text[this.at - 1] ?? "") ? null : BARE_ADDRESS.exec(this.text);
    const shown = found?.[0].replace(/[.,;:!?'_~]+$/, "");
    const address = shown && safeAddress(shown);
    if (!address) return this._plain();
    this.tokens.push({ bare: shown, address });
    this.at += shown.length;
  }
}

// Match runs of delimiters, as CommonMark does: each closer looks back no further than one like it looked before.
function pairUp(delimiters) {
  delimiters.forEach((token, index) => {
    token.index = index;
    token.previous = delimiters[index - 1];
    token.next = delimiters[index + 1];
  });
  const bottoms = new Map();
  let closer = delimiters[0];
  while (closer) {
    if (!closer.canClose) {
      closer = closer.next;
      continue;
    }
    const kind = `${closer.mark}${closer.canOpen}${closer.length % 3}`;
    const opener = openerOf(closer, bottoms.get(kind) ?? -1);
    if (opener) closer = paired(opener, closer);
    else {
      bottoms.set(kind, closer.index - 1);
      if (!closer.canOpen) unlink(closer);
      closer = closer.next;
    }
  }
}

function openerOf(closer, bottom) {
  for (let opener = closer.previous; opener && opener.index > bottom; opener = opener.previous) {
    work.steps += 1;
    if (opener.mark !== closer.mark || !opener.canOpen) continue;
    if (closer.mark === "~" && (opener.count < 2 || closer.count < 2)) continue;
    const uneven = (opener.canClose || closer.canOpen) && (opener.length + closer.length) % 3 === 0;
    if (!uneven || (opener.length % 3 === 0 && closer.length % 3 === 0)) return opener;
  }
  return null;
}

// Join an opener and a closer once; return the closer to go on with.
function paired(opener, closer) {
  work.steps += 1;
  const both = opener.count >= 2 && closer.count >= 2;
  const name = closer.mark === "~" ? "del" : both ? "strong" : "em";
  opener.opens.push(name);
  closer.closes.push(name);
  opener.count -= both ? 2 : 1;
  closer.count -= both ? 2 : 1;
  opener.next = closer; // what is between them can no longer match
  closer.previous = opener;
  if (!opener.count) unlink(opener);
  if (closer.count) return closer;
  unlink(closer);
  return closer.next;
}

function unlink(token) {
  if (token.previous) token.previous.next = token.next;
  if (token.next) token.next.previous = token.previous;
}

function written(tokens) {
  const events = [];
  for (const token of tokens) {
    if (token.mark) {
      for (const _ of token.closes) events.push({ close: true });
      if (token.count) events.push({ text: token.mark.repeat(token.count) });
      for (const name of token.opens.reverse()) events.push({ open: name });
    } else if (token.bare) {
      events.push({ open: "link", address: token.address }, { text: token.bare }, { close: true });
    } else events.push(token);
  }
  return events;
}

// Whether a run of delimiters between these two characters stands at the beginning of what follows it.
function flanks(before, after) {
  if (SPACE.test(after)) return false;
  return !PUNCTUATION.test(after) || SPACE.test(before) || PUNCTUATION.test(before);
}

function runLength(text, at) {
  let end = at + 1;
  while (text[end] === text[at]) end += 1;
  work.steps += end - at;
  return end - at;
}

// Where the runs of backticks are, by their length.
function tickRuns(text) {
  const runs = new Map();
  for (const found of text.matchAll(/`+/g)) {
    const length = found[0].length;
    if (!runs.has(length)) runs.set(length, { places: [], next: 0 });
    runs.get(length).places.push(found.index);
  }
  work.steps += text.length;
  return runs;
}

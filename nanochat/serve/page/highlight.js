// Which words of a line of code are keywords, strings, numbers, comments and calls, for a few languages.
//
// Goes line by line and carries over what a line leaves open (a comment, a long string), so that code can be
// coloured while it streams. A line is read once; lines beyond LONGEST_LINE stay plain.
// Not here: elements; languages that it does not know stay plain too.

const LONGEST_LINE = 2000;

const words = (text) => new Set(text.split(" "));

const C_LIKE = { comment: ["//"], block: ["/*", "*/"], quotes: `"'` };
const SCRIPT_WORDS =
  "async await break case catch class const continue default delete do else export extends finally for from function" +
  " if import in instanceof interface let new of return static super switch this throw try type typeof var void while yield";
const SYSTEM_WORDS =
  "auto bool break case catch char class const constexpr continue default delete do double else enum extern float for" +
  " goto if inline int long namespace new operator private protected public register return short signed sizeof static" +
  " struct switch template this throw try typedef union unsigned using virtual void volatile while final package import" +
  " extends implements interface boolean byte throws abstract synchronized";
const RUST_GO_WORDS =
  "as async await break const continue crate defer dyn else enum extern fn for func go if impl import in interface let" +
  " loop map match mod move mut package pub range ref return select self static struct switch trait type unsafe use var" +
  " where while chan";

const LANGUAGES = {
  python: {
    comment: ["#"],
    long: [`"""`, "'''"],
    quotes: `"'`,
    words: words(
      "and as assert async await break case class continue def del elif else except finally for from global if import in" +
        " is lambda match nonlocal not or pass raise return try while with yield",
    ),
    values: words("True False None self"),
  },
  script: { ...C_LIKE, long: ["`"], words: words(SCRIPT_WORDS), values: words("true false null undefined NaN") },
  system: { ...C_LIKE, words: words(SYSTEM_WORDS), values: words("true false null nullptr NULL") },
  rust: { comment: ["//"], block: ["/*", "*/"], quotes: `"`, words: words(RUST_GO_WORDS), values: words("true false nil None Some Ok Err") },
  shell: {
    comment: ["#"],
    quotes: `"'`,
    words: words("if then else elif fi for while until do done case esac in function return local export set unset"),
    values: words("cd echo exit grep cat ls mkdir rm cp mv sudo pip uv git python curl"),
  },
  json: { quotes: `"`, words: words(""), values: words("true false null") },
  sql: {
    comment: ["--"],
    block: ["/*", "*/"],
    quotes: `'"`,
    ignoresCase: true,
    words: words(
      "select from where and or not insert into values update set delete create table drop alter join left right inner" +
        " outer on group by order having limit as distinct union all case when then else end is in like between",
    ),
    values: words("null true false"),
  },
};

const ALIASES = {
  py: "python", python3: "python", js: "script", javascript: "script", jsx: "script", ts: "script", tsx: "script",
  typescript: "script", c: "system", h: "system", cpp: "system", "c++": "system", java: "system", cs: "system",
  rs: "rust", go: "rust", sh: "shell", bash: "shell", zsh: "shell", console: "shell", jsonl: "json",
}; // prettier-ignore

const NAME = /[\p{L}_$][\p{L}\p{N}_$]*/uy;
const NUMBER = /(?:0[xXbBoO][\da-fA-F_]+|\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)/y;

/** Return the language that a name means, or null. */
export function languageOf(name) {
  const known = name.toLowerCase();
  const found = Object.hasOwn(ALIASES, known) ? ALIASES[known] : known;
  return Object.hasOwn(LANGUAGES, found) ? LANGUAGES[found] : null;
}

/** Return `[tokens, open]` of a line: tokens are `{kind, text}` in order, `open` is what the next line begins in. */
export function colouredLine(line, language, open = null) {
  if (line.length > LONGEST_LINE) return [[{ kind: "", text: line }], open];
  return new LineReader(line, language, open).read();
}

class LineReader {
  constructor(line, language, open) {
    this.line = line;
    this.language = language;
    this.open = open;
    this.at = 0;
    this.tokens = [];
  }

  read() {
    if (this.open) this._rest(this.open);
    while (this.at < this.line.length) {
      if (!(this._comment() || this._long() || this._string() || this._number() || this._name())) {
        this._token("", this.at + 1);
      }
    }
    return [this.tokens, this.open];
  }

  // Tokens of one kind that follow each other are one.
  _token(kind, end) {
    const text = this.line.slice(this.at, end);
    const last = this.tokens.at(-1);
    if (last?.kind === kind) last.text += text;
    else this.tokens.push({ kind, text });
    this.at = end;
    return true;
  }

  // What a comment or string of several lines has of this line.
  _rest(open) {
    const end = this.line.indexOf(open.end, this.at + (open.skip ?? 0));
    this.open = end < 0 ? { kind: open.kind, end: open.end } : null;
    return this._token(open.kind, end < 0 ? this.line.length : end + open.end.length);
  }

  _comment() {
    const { comment = [], block } = this.language;
    if (block && this.line.startsWith(block[0], this.at)) {
      return this._rest({ kind: "comment", end: block[1], skip: block[0].length });
    }
    const starts = comment.some((mark) => this.line.startsWith(mark, this.at));
    const inWord = this.language === LANGUAGES.shell && /\S/.test(this.line[this.at - 1] ?? " ");
    return starts && !inWord && this._token("comment", this.line.length);
  }

  _long() {
    const mark = this.language.long?.find((quote) => this.line.startsWith(quote, this.at));
    return mark ? this._rest({ kind: "string", end: mark, skip: mark.length }) : false;
  }

  _string() {
    const quote = this.line[this.at];
    if (!this.language.quotes.includes(quote)) return false;
    let end = this.at + 1;
    while (end < this.line.length && this.line[end] !== quote) end += this.line[end] === "\\" ? 2 : 1;
    return this._token("string", Math.min(end + 1, this.line.length));
  }

  _number() {
    NUMBER.lastIndex = this.at;
    return NUMBER.test(this.line) && this._token("number", NUMBER.lastIndex);
  }

  _name() {
    NAME.lastIndex = this.at;
    const found = NAME.exec(this.line);
    if (!found) return false;
    const end = NAME.lastIndex;
    const word = this.language.ignoresCase ? found[0].toLowerCase() : found[0];
    if (this.language.words.has(word)) return this._token("keyword", end);
    if (this.language.values.has(word)) return this._token("value", end);
    return this._token(this.line[end] === "(" ? "call" : "", end);
  }
}

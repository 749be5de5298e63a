// What an answer consists of: parts of text, of calculator expressions and of their results, in nanochat's form.
// Not here: where the parts come from (`api.js`), how they are shown (`message_view.js`).

/** Add an event of a stream to the parts of an answer. */
export function addEvent(parts, event) {
  if (event.text !== undefined) addText(parts, event.text);
  else if (event.calculator) addCalculator(parts, event.calculator);
}

function addText(parts, text) {
  const last = parts.at(-1);
  if (last?.type === "text") last.text += text;
  else parts.push({ type: "text", text });
}

function addCalculator(parts, { expression, result }) {
  if (expression !== undefined && expression !== null) parts.push({ type: "python", text: String(expression) });
  if (result !== undefined && result !== null) parts.push({ type: "python_output", text: String(result) });
}

/** Return the text outside the calculator. */
export function textOf(parts) {
  return parts.map(({ type, text }) => (type === "text" ? text : "")).join("");
}

/** Return the parts as the content of a message: a string where there is only text. */
export function contentOf(parts) {
  const said = parts.filter(({ text }) => text);
  return said.every(({ type }) => type === "text") ? textOf(said) : said.map(({ type, text }) => ({ type, text }));
}

/** Return the parts in groups: `{text}`, or `{expression, result}` of one use of the calculator. */
export function groupsOf(parts) {
  const groups = [];
  for (const { type, text } of parts) {
    const last = groups.at(-1);
    if (type === "text") groups.push({ text });
    else if (type === "python") groups.push({ expression: text, result: null });
    else if (last && last.result === null) last.result = text;
    else groups.push({ expression: "", result: text });
  }
  return groups;
}

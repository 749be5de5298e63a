// Asks the page's modules that know no elements: reads a list of questions as JSON, prints their answers.

const [folder] = process.argv.slice(2);
const load = (name) => import(`${folder}/${name}.js`);
const { BlockParser } = await load("markdown_blocks");
const { inlineEvents, safeAddress, work } = await load("markdown_inline");
const { colouredLine, languageOf } = await load("highlight");
const { exportedMessages, merge, messagesUpTo, pathOf, readConversation } = await load("conversation");
const { EventReader } = await load("events");
const { answer, keepApiKey } = await load("api");
const { fileName } = await load("export");

function blocks(pieces) {
  const parser = new BlockParser();
  for (const piece of pieces) {
    parser.push(piece);
    parser.preview();
  }
  return parser.root;
}

function leavesOf(node) {
  const own = node.lines && node.kind !== "code" ? [node.lines.join("\n")] : (node.cells ?? []);
  return [...own, ...(node.children ?? []).flatMap(leavesOf)];
}

function deepest(node) {
  return 1 + Math.max(0, ...(node.children ?? []).slice(-1).map(deepest));
}

// A small text, repeated: how much work it is, and how large and deep what it becomes.
function cost({ text, times }) {
  const root = blocks([text.repeat(times)]);
  const leaves = leavesOf(root);
  work.steps = 0;
  const events = leaves.reduce((sum, leaf) => sum + inlineEvents(leaf).length, 0);
  const longest = leaves.reduce((most, leaf) => Math.max(most, leaf.length), 0);
  return { steps: work.steps + leaves.length, events, longest, depth: deepest(root) };
}

function coloured({ language, lines }) {
  let open = null;
  return lines.map((line) => {
    const [tokens, left] = colouredLine(line, languageOf(language), open);
    open = left;
    return tokens;
  });
}

function merged({ own, other }) {
  const [mine, theirs] = [own, other].map((conversation) => readConversation(JSON.stringify(conversation)));
  const lacked = merge(mine, theirs);
  const path = pathOf(mine).map(({ message, versions }) => [message.id, versions.map(({ id }) => id)]);
  return { lacked, messages: mine.messages, path };
}

function asked({ conversation, last, leftOut }) {
  const sent = messagesUpTo(conversation, conversation.messages[last], conversation.system ?? "", leftOut);
  return { sent, exported: exportedMessages(conversation) };
}

function events(pieces) {
  const reader = new EventReader();
  return pieces.flatMap((piece) => reader.push(piece));
}

// Whether the page shows what a browser has kept.
function isWhole(text) {
  try {
    readConversation(text);
    return true;
  } catch {
    return false;
  }
}

// What the page takes from an answer of the server; with `breaks` the connection ends behind it.
async function taken({ status, body, breaks, key = "" }) {
  keepApiKey(key);
  const pieces = [new TextEncoder().encode(body)];
  const pull = (stream) => {
    if (pieces.length) stream.enqueue(pieces.pop());
    else if (breaks) stream.error(new TypeError("network error"));
    else stream.close();
  };
  globalThis.fetch = async () => new Response(new ReadableStream({ pull }), { status });
  const found = [];
  try {
    for await (const event of answer({})) found.push(event);
  } catch (error) {
    found.push({ error: error.kind ?? String(error) });
  }
  return found;
}

const known = { isWhole, taken, fileName, blocks, inline: inlineEvents, safeAddress, cost, coloured, merged, asked, events };
let text = "";
for await (const piece of process.stdin) text += piece;
const answers = [];
for (const [name, argument] of JSON.parse(text)) answers.push(await known[name](argument));
process.stdout.write(JSON.stringify(answers));

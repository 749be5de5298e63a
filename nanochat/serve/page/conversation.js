// A conversation: a tree of messages, in which a reader has chosen one version at each place.
//
// A message is never changed once it is whole; an edit or another answer is a sibling. So two tabs that hold the
// same conversation are brought together by putting their messages in one tree. Not here: storage, elements.

import { contentOf, textOf } from "./answer.js";
import { randomName } from "./dom.js";

const ROOT = "root";
const LONGEST_TITLE = 60;

/** Return a conversation without messages. */
export function newConversation(now = Date.now()) {
  return { id: randomName(), title: "", titledAt: 0, created: now, changed: now, messages: {}, chosen: {} };
}

/** Add a message below another (null: as the first) and choose it; return it. */
export function addMessage(conversation, parent, fields, now = Date.now()) {
  const id = randomName();
  const message = { id, parent, at: now, revision: 0, ...fields };
  conversation.messages[id] = message;
  conversation.chosen[parent ?? ROOT] = id;
  conversation.changed = now;
  if (!conversation.title && message.role === "user") conversation.title = titleFrom(message.text);
  return message;
}

/** Return the chosen messages, first to last. */
export function pathOf(conversation) {
  const children = childrenByParent(conversation);
  const path = [];
  let place = ROOT;
  while (children.has(place)) {
    const versions = children.get(place);
    const chosen = versions.find(({ id }) => id === conversation.chosen[place]) ?? versions.at(-1);
    path.push({ message: chosen, versions });
    place = chosen.id;
  }
  return path;
}

/** Choose the version of a message that is `step` after it. */
export function chooseVersion(conversation, message, step) {
  const versions = childrenByParent(conversation).get(message.parent ?? ROOT);
  const found = versions[versions.findIndex(({ id }) => id === message.id) + step];
  if (found) conversation.chosen[message.parent ?? ROOT] = found.id;
  return found ?? message;
}

function childrenByParent(conversation) {
  const children = new Map();
  const all = Object.values(conversation.messages).sort((a, b) => a.at - b.at || (a.id < b.id ? -1 : 1));
  for (const message of all) {
    const place = message.parent ?? ROOT;
    if (!children.has(place)) children.set(place, []);
    children.get(place).push(message);
  }
  return children;
}

/** Return what is asked: the messages up to the one that is answered, in the API's form. */
export function messagesUpTo(conversation, last, system, leftOut = 0) {
  return withSystem(alternating(pathTo(conversation, last).slice(leftOut)), system);
}

/** Return the messages from the first to this one. */
export function pathTo(conversation, last) {
  const path = [];
  for (let at = last; at; at = conversation.messages[at.parent]) path.push(at);
  return path.reverse();
}

/** Return the chosen messages in nanochat's form of a conversation, as it reads them for training. */
export function exportedMessages(conversation) {
  const path = pathOf(conversation).map(({ message }) => message);
  const answered = path.filter(({ role }) => role === "assistant");
  const system = answered.at(-1)?.asked?.system;
  return withSystem(alternating(path), typeof system === "string" ? system : "");
}

function withSystem(messages, system) {
  return system ? [{ role: "system", content: system }, ...messages] : messages;
}

// A question that was never answered is asked together with the next one: roles must alternate.
function alternating(path) {
  const messages = [];
  for (const { role, text, parts } of path) {
    const content = role === "user" ? text : contentOf(parts);
    if (!content.length) continue;
    if (messages.at(-1)?.role === role) messages.at(-1).content += `\n\n${content}`;
    else messages.push({ role, content });
  }
  return messages;
}

/** Return the beginning of a message as a title. */
export function titleFrom(text) {
  const line = text.trim().replace(/\s+/g, " ");
  const characters = Array.from(line.slice(0, LONGEST_TITLE * 4));
  if (characters.length <= LONGEST_TITLE) return line || "Untitled";
  const cut = characters.slice(0, LONGEST_TITLE).join("");
  return `${cut.replace(/ [^ ]{0,20}$/, "")}…`;
}

/** Put the messages of another copy into a conversation; return whether that copy lacked something. */
export function merge(conversation, other) {
  let lacked = false;
  for (const [id, message] of Object.entries(conversation.messages)) {
    lacked ||= !other.messages[id] || other.messages[id].revision < message.revision;
  }
  for (const [id, message] of Object.entries(other.messages)) {
    const own = conversation.messages[id];
    if (!own || own.revision < message.revision) conversation.messages[id] = message;
  }
  conversation.chosen = { ...other.chosen, ...conversation.chosen };
  conversation.changed = Math.max(conversation.changed, other.changed);
  if (other.titledAt > conversation.titledAt) {
    [conversation.title, conversation.titledAt] = [other.title, other.titledAt];
  }
  return lacked || other.titledAt < conversation.titledAt;
}

/** Return the conversation that a stored text holds; throw where it is damaged. */
export function readConversation(text) {
  const { id, title, titledAt, created, changed, messages, chosen } = JSON.parse(text);
  const whole =
    typeof id === "string" &&
    typeof title === "string" &&
    [titledAt, created, changed].every(Number.isFinite) &&
    isObject(chosen) &&
    isObject(messages) &&
    Object.entries(messages).every(([name, message]) => isMessage(name, message)) &&
    isTree(messages);
  if (!whole) throw new Error("a stored conversation is damaged");
  return { id, title, titledAt, created, changed, messages, chosen };
}

// Each message can be reached from the first, and each answer has its question.
function isTree(messages) {
  const children = childrenByParent({ messages });
  const found = [...(children.get(ROOT) ?? [])];
  for (const { id } of found) found.push(...(children.get(id) ?? []));
  const answers = found.filter(({ role }) => role === "assistant");
  return found.length === Object.keys(messages).length && answers.every(({ parent }) => messages[parent]?.role === "user");
}

function isMessage(name, message) {
  if (name === ROOT || name === "__proto__") return false; // names that have a meaning of their own
  if (!isObject(message) || message.id !== name || !Number.isFinite(message.at)) return false;
  if (message.parent !== null && typeof message.parent !== "string") return false;
  if (!Number.isFinite(message.revision)) return false;
  if (message.role === "user") return typeof message.text === "string";
  return message.role === "assistant" && Array.isArray(message.parts) && message.parts.every(isPart);
}

function isPart(part) {
  return isObject(part) && typeof part.text === "string" && ["text", "python", "python_output"].includes(part.type);
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Return the text of a message as its reader copies it. */
export function copiedText(message) {
  return message.role === "user" ? message.text : textOf(message.parts);
}

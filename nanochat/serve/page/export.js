// A conversation as a file: the chosen versions, as nanochat's own JSON or as Markdown.
// Not here: the tree of versions, which stays in the browser.

import { contentOf } from "./answer.js";
import { exportedMessages, pathOf } from "./conversation.js";
import { element } from "./dom.js";

/** Return a line of a conversation file that nanochat can train on. */
export function asJson(conversation) {
  return `${JSON.stringify({ messages: exportedMessages(conversation), title: conversation.title })}\n`;
}

/** Return the conversation as Markdown. */
export function asMarkdown(conversation) {
  const turns = pathOf(conversation).map(({ message }) => `**${speaker(message)}**\n\n${written(message)}\n`);
  return [`# ${conversation.title}\n`, ...turns].join("\n");
}

function speaker({ role }) {
  return role === "user" ? "You" : "Model";
}

function written(message) {
  if (message.role === "user") return message.text;
  const content = contentOf(message.parts);
  if (typeof content === "string") return content;
  const forms = { text: (text) => text, python: (text) => `[${text}`, python_output: (text) => ` = ${text}] ` };
  return content.map(({ type, text }) => forms[type](text)).join("");
}

/** Offer a text as a file. */
export function download(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/** Return a title as the beginning of a file name. */
export function fileName(title) {
  const words = title.normalize("NFKC").match(/[\p{L}\p{M}\p{N}]+/gu) ?? ["conversation"];
  return Array.from(words.join("-")).slice(0, 50).join("").replace(/-$/, "");
}

// The chat itself: which conversation is open, what is asked, what is done when an answer fails.
//
// Each conversation has at most one answer that is being written; it goes on while another is open.
// Not here: elements (the views), storage (`store.js`), the stream (`running_answer.js`).

import { ApiError, apiKey, keepApiKey, model } from "./api.js";
import { addMessage, chooseVersion, messagesUpTo, newConversation, pathOf, pathTo } from "./conversation.js";
import { asJson, asMarkdown, download, fileName } from "./export.js";
import { RunningAnswer } from "./running_answer.js";
import { asRequest } from "./settings.js";

const SAVE_EVERY_MS = 1000;
const TRY_AGAIN = "Try again";

/** The state of the page and all that a reader can do with it. */
export class Chat {
  constructor({ store, settings, connection, askKey, changed, grown, said, note }) {
    Object.assign(this, { store, settings, connection });
    this._page = { askKey, changed, grown, said, note };
    this._running = new Map(); // by conversation
    this._problems = new Map(); // by conversation
    this._savedAt = 0;
    this.current = null;
    this.editing = null;
    this.model = { id: "", longest: null };
  }

  /** Ask which model there is. */
  async meet() {
    try {
      this.model = await model();
      this._page.changed();
    } catch (error) {
      if (error.kind === "key") await this._newKey(() => this.meet());
      else if (error instanceof ApiError) this._note(error);
    }
  }

  /** Return the messages of the open conversation with their versions. */
  path() {
    return this.current ? pathOf(this.current) : [];
  }

  /** Return the message that is being written in the open conversation, or null. */
  runningMessage() {
    return (this.current && this._running.get(this.current.id)?.message) ?? null;
  }

  /** Return the conversations in which an answer is being written. */
  runningIds() {
    return new Set(this._running.keys());
  }

  /** Return what is wrong, with what can be done about it, or null. */
  problem() {
    const own = this.current && this._problems.get(this.current.id);
    const again = own ? own.again : () => this.connection.check();
    if (this.connection.state === "offline") {
      return { kind: "offline", text: "The server does not answer. Looking for it…", actions: [[TRY_AGAIN, again]] };
    }
    if (this.connection.state === "loading") {
      return { kind: "offline", text: "The server is not ready yet. Waiting for it…", actions: [[TRY_AGAIN, again]] };
    }
    return own ? { kind: "", text: own.text, actions: own.actions ?? [[TRY_AGAIN, again]] } : null;
  }

  /** Open a conversation, or none: the place for a new one. */
  open(id) {
    this.current = this.store.conversations.get(id) ?? null;
    this.editing = null;
    this._page.changed({ opened: true });
  }

  /** Send a message, or the other wording of the one that is edited. */
  send(text) {
    this.current ??= newConversation();
    const conversation = this.current;
    const parent = this.editing ? this.editing.parent : (this.path().at(-1)?.message.id ?? null);
    this.editing = null;
    const question = addMessage(conversation, parent, { role: "user", text });
    this._ask(conversation, question);
  }

  /** Write another version of an answer. */
  regenerate(message) {
    if (this.runningMessage()) return;
    this._ask(this.current, this.current.messages[message.parent]);
  }

  /** Begin to edit one of the reader's messages. */
  edit(message) {
    this.editing = message;
  }

  /** Show another version of a message. */
  version(message, step) {
    const shown = chooseVersion(this.current, message, step);
    this.store.save(this.current);
    this._page.changed();
    return shown;
  }

  /** Stop the answer of the open conversation. */
  stop() {
    const running = this.current && this._running.get(this.current.id);
    running?.stop();
    return Boolean(running);
  }

  /** Give a conversation another title. */
  rename(id, title) {
    const conversation = this.store.conversations.get(id);
    if (!conversation) return;
    [conversation.title, conversation.titledAt] = [title, Date.now()];
    this.store.save(conversation);
    this._page.changed();
  }

  /** Delete a conversation; it can be taken back for a while. */
  remove(id) {
    const conversation = this.store.conversations.get(id);
    if (!conversation) return;
    this._running.get(id)?.stop();
    this.store.remove(id);
    const wasOpen = this.current?.id === id;
    if (wasOpen) this.open(null);
    else this._page.changed();
    const undo = () => {
      this.store.save(conversation);
      if (wasOpen) this.open(id);
      else this._page.changed();
    };
    this._page.note(`Deleted “${conversation.title}”.`, [["Undo", undo]]);
  }

  /** Offer a conversation as a file. */
  download(id, kind) {
    const conversation = this.store.conversations.get(id);
    const name = fileName(conversation.title);
    if (kind === "json") download(`${name}.jsonl`, "application/jsonl", asJson(conversation));
    else download(`${name}.md`, "text/markdown", asMarkdown(conversation));
  }

  /** Another tab has saved or deleted a conversation. */
  changedElsewhere(id) {
    const gone = !this.store.conversations.has(id);
    if (gone) this._running.get(id)?.stop();
    if (gone && this.current?.id === id) {
      this.open(null);
      this._page.note("This conversation was deleted in another tab.");
    } else this._page.changed();
  }

  /** Keep what has come of answers that are being written: the page closes. */
  saveAll() {
    const kept = [...this._running.keys()].map((id) => this.store.conversations.get(id));
    for (const conversation of kept.filter(Boolean)) this._save(conversation); // others were deleted just now
  }

  async _ask(conversation, question, leftOut = leftOutAt(conversation, question)) {
    const asked = { ...this.settings };
    const fields = { role: "assistant", parts: [], finish: "running", asked, leftOut };
    const message = addMessage(conversation, question.id, fields);
    await this._write(conversation, message);
  }

  async _write(conversation, message) {
    const question = conversation.messages[message.parent];
    const running = new RunningAnswer(message, {
      grown: () => this._grown(conversation, message),
      said: (text) => conversation === this.current && this._page.said(text),
    });
    this._running.set(conversation.id, running);
    this._problems.delete(conversation.id);
    this._save(conversation);
    this._page.changed({ asked: conversation === this.current });
    try {
      const messages = messagesUpTo(conversation, question, message.asked.system, message.leftOut);
      await running.write({ messages, ...(this.model.id ? { model: this.model.id } : {}), ...asRequest(message.asked) });
      this.connection.met("ready");
      if (!this.model.id) this.meet(); // the key came only now
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      await this._failed(conversation, message, error);
    } finally {
      if (this._running.get(conversation.id) === running) this._running.delete(conversation.id);
      if (this.store.conversations.has(conversation.id)) this._save(conversation);
      this._page.changed({ finished: conversation === this.current });
    }
  }

  _grown(conversation, message) {
    if (conversation === this.current) this._page.grown(message);
    if (Date.now() - this._savedAt < SAVE_EVERY_MS || !this.store.conversations.has(conversation.id)) return;
    message.revision += 1;
    this._save(conversation);
  }

  _save(conversation) {
    this._savedAt = Date.now();
    this.store.save(conversation);
  }

  // An answer of which something came is kept, and the next try is another version of it.
  async _failed(conversation, message, error) {
    const question = conversation.messages[message.parent];
    const again = () => (message.parts.length ? this._ask(conversation, question) : this._write(conversation, message));
    this._problems.set(conversation.id, { again, ...this._explained(error, conversation, message, again) });
    this._note(error);
    if (error.kind === "key") queueMicrotask(() => this._newKey(again));
  }

  _explained(error, conversation, message, again) {
    switch (error.kind) {
      case "offline":
      case "loading":
        return { text: "Your last message has no answer yet." };
      case "key":
        return { text: apiKey() ? "The server did not accept the key." : "The server answers only with a key.", actions: [[TRY_AGAIN, () => this._newKey(again)]] };
      case "busy":
        return { text: `The server is busy. ${error.retryAfter ? `It asks to wait ${error.retryAfter} s.` : "Wait a moment."}` };
      case "overflow":
        return this._overflow(error, conversation, message);
      default:
        return { text: error.message };
    }
  }

  // The oldest turns can be left out, half of them at each try, as long as the last question stays.
  _overflow(error, conversation, message) {
    const question = conversation.messages[message.parent];
    const left = pathTo(conversation, question).length - message.leftOut;
    if (left < 2) return { text: `${error.message}. Shorten your message.` };
    const shorter = () => {
      message.leftOut += 2 * Math.ceil(left / 4);
      return this._write(conversation, message);
    };
    const text = "The conversation is longer than the model can read.";
    return { text, again: shorter, actions: [[`${TRY_AGAIN} without the oldest messages`, shorter]] };
  }

  _note(error) {
    if (error.kind === "offline" || error.kind === "loading") this.connection.met(error.kind);
  }

  async _newKey(then) {
    const key = await this._page.askKey();
    if (!key) return;
    keepApiKey(key);
    await then();
  }
}

// How many of the oldest messages the answers before this question, or to it, were asked without.
function leftOutAt(conversation, question) {
  const known = Object.values(conversation.messages).filter(({ parent }) => parent === question.id);
  return Math.max(0, ...[conversation.messages[question.parent], ...known].map((message) => message?.leftOut ?? 0));
}

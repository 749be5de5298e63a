// Conversations in the browser's storage, one entry each, shared by all tabs of this address.
//
// Saving first takes in what another tab has saved, so none overwrites another's messages. What cannot be read is
// left where it is and reported; what cannot be saved stays in memory and is reported. Not here: elements.

import { merge, readConversation } from "./conversation.js";

const PREFIX = "nanochat.conversation.";

/** The conversations of this browser. */
export class ConversationStore {
  /** `report(problem)` is called with "full", "off" or "damaged"; `changed(id)` when another tab saved or deleted. */
  constructor(report, changed) {
    this.conversations = new Map();
    this.damaged = [];
    this._report = report;
    this._storage = storage();
    if (!this._storage) report("off");
    else this._load();
    addEventListener("storage", (event) => this._onStorage(event, changed));
  }

  /** Return all conversations, the last changed first. */
  list() {
    return [...this.conversations.values()].sort((a, b) => b.changed - a.changed || (a.id < b.id ? -1 : 1));
  }

  /** Keep a conversation, together with what another tab has added to it; return whether it was stored. */
  save(conversation) {
    this.conversations.set(conversation.id, conversation);
    if (!this._storage) return false;
    try {
      const stored = this._stored(PREFIX + conversation.id);
      if (stored) merge(conversation, stored);
      this._storage.setItem(PREFIX + conversation.id, JSON.stringify(conversation));
      return true;
    } catch {
      this._report("full");
      return false;
    }
  }

  /** Forget a conversation. */
  remove(id) {
    this.conversations.delete(id);
    this._storage?.removeItem(PREFIX + id);
  }

  /** Delete the entries that could not be read. */
  removeDamaged() {
    for (const key of this.damaged) this._storage.removeItem(key);
    this.damaged = [];
  }

  _load() {
    for (const key of Object.keys(this._storage).filter((name) => name.startsWith(PREFIX))) {
      const conversation = this._stored(key);
      if (conversation && PREFIX + conversation.id === key) this.conversations.set(conversation.id, conversation);
      else this.damaged.push(key);
    }
    if (this.damaged.length) this._report("damaged");
  }

  _stored(key) {
    try {
      const text = this._storage.getItem(key);
      return text === null ? null : readConversation(text);
    } catch {
      return null;
    }
  }

  _onStorage(event, changed) {
    if (event.key === null) {
      for (const id of [...this.conversations.keys()]) this._forget(id, changed); // all of it was cleared
    } else if (event.key.startsWith(PREFIX)) {
      const id = event.key.slice(PREFIX.length);
      if (event.newValue === null) this._forget(id, changed);
      else this._takeIn(id, event.key, changed);
    }
  }

  _forget(id, changed) {
    this.conversations.delete(id);
    changed(id);
  }

  _takeIn(id, key, changed) {
    const other = this._stored(key);
    if (!other) return;
    const own = this.conversations.get(id);
    if (!own) this.conversations.set(id, other);
    else if (merge(own, other)) this.save(own); // the other tab had not seen all
    changed(id);
  }
}

function storage() {
  try {
    localStorage.setItem("nanochat.try", "1");
    localStorage.removeItem("nanochat.try");
    return localStorage;
  } catch (error) {
    return error.name === "QuotaExceededError" ? localStorage : null; // full, but it can be read
  }
}

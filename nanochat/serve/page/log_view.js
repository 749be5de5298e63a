// The messages of a conversation, one below the other, scrolled to the end as long as the reader is there.
//
// While an answer is written it is drawn once per frame; a screen reader gets it sentence by sentence, once,
// through a region of its own. Not here: one message (`message_view.js`).

import { MessageView } from "./message_view.js";
import { element, icon } from "./dom.js";

const NEAR_END = 60; // pixels
const SPOKEN_FOR_MS = 4000;
const LONGEST_SENTENCE = 400;
const MARKS = /[*_`#|~]+/g; // of Markdown: nothing to listen to

/** The log of one conversation at a time. */
export class LogView {
  constructor({ log, scroll, toEnd, spoken }, actions) {
    [this._log, this._scroll, this._toEnd, this._spoken] = [log, scroll, toEnd, spoken];
    this._actions = actions;
    this._views = new Map();
    this._atEnd = true;
    this._frame = 0;
    this._toEnd.append(icon("down"));
    this._toEnd.setAttribute("aria-label", "To the end");
    this._toEnd.addEventListener("click", () => this.toEnd());
    this._scroll.addEventListener("scroll", () => this._scrolled(), { passive: true });
    const sizes = new ResizeObserver(() => this._follow()); // an alert below makes the place smaller
    for (const changing of [this._log, this._scroll]) sizes.observe(changing);
  }

  /** Show these messages; `running` is the one that is being written. */
  show(path, running) {
    const kept = new Set(path.map(({ message }) => message.id));
    for (const [id, view] of this._views) {
      if (kept.has(id)) continue;
      view.dom.remove();
      this._views.delete(id);
    }
    let before = null;
    for (const { message, versions } of path) {
      const view = this._view(message);
      const place = before ? before.nextSibling : this._log.firstChild;
      if (place !== view.dom) this._log.insertBefore(view.dom, place);
      view.update(message, versions, message === running);
      before = view.dom;
    }
    this._follow();
  }

  /** Draw a message that has grown, at the next frame. */
  grow(message) {
    if (this._frame) return;
    this._frame = requestAnimationFrame(() => {
      this._frame = 0;
      this._views.get(message.id)?.draw();
      this._follow();
    });
  }

  /** Scroll to the end and stay there. */
  toEnd() {
    this._atEnd = true;
    this._follow();
  }

  /** Return the element of a message. */
  elementOf(message) {
    return this._views.get(message.id)?.dom;
  }

  /** Let a screen reader read a text once. */
  speak(text) {
    const said = element("p", {}, text.replace(MARKS, ""));
    this._spoken.append(said);
    setTimeout(() => said.remove(), SPOKEN_FOR_MS);
  }

  _view(message) {
    if (!this._views.has(message.id)) this._views.set(message.id, new MessageView(message, this._actions));
    return this._views.get(message.id);
  }

  _scrolled() {
    const { scrollHeight, scrollTop, clientHeight } = this._scroll;
    this._atEnd = scrollHeight - scrollTop - clientHeight < NEAR_END;
    this._toEnd.hidden = this._atEnd;
  }

  _follow() {
    if (this._atEnd) this._scroll.scrollTop = this._scroll.scrollHeight;
    else this._scrolled();
  }
}

/** Cuts a text that grows into sentences. */
export class Sentences {
  constructor() {
    this._rest = "";
  }

  /** Return the sentences that a piece completes, as one text. */
  push(text) {
    this._rest += text;
    const end = Math.max(...[". ", "! ", "? ", "\n"].map((mark) => this._rest.lastIndexOf(mark)));
    if (end < 0 && this._rest.length < LONGEST_SENTENCE) return "";
    const whole = end < 0 ? this._rest : this._rest.slice(0, end + 1);
    this._rest = this._rest.slice(whole.length);
    return whole.trim();
  }

  /** Return what is left. */
  end() {
    return this._rest.trim();
  }
}

// Whether the server is there: asks its health, more often while it is gone, and says when that changes.

import { ApiError, health } from "./api.js";

const CALM_MS = 20_000;
const GONE_MS = [1000, 2000, 3000, 5000]; // then always the last

/** Watches the server; `state` is "ready", "offline" or "loading". */
export class Connection {
  constructor(changed) {
    this.state = "ready";
    this._changed = changed;
    this._tries = 0;
    this._timer = 0;
    this._asking = null;
    addEventListener("online", () => this.check());
    document.addEventListener("visibilitychange", () => document.hidden || this.check());
  }

  /** Ask now; return the state. */
  check() {
    this._asking ??= this._ask().finally(() => (this._asking = null));
    return this._asking;
  }

  /** Take note of what a request met. */
  met(state) {
    this._set(state);
    this._later();
  }

  async _ask() {
    try {
      await health();
      this._set("ready");
    } catch (error) {
      this._set(error instanceof ApiError && error.kind !== "offline" ? stateOf(error) : "offline");
    }
    this._later();
    return this.state;
  }

  _set(state) {
    this._tries = state === "ready" ? 0 : this._tries + 1;
    if (state === this.state) return;
    this.state = state;
    this._changed(state);
  }

  _later() {
    clearTimeout(this._timer);
    const wait = this.state === "ready" ? CALM_MS : GONE_MS[Math.min(this._tries, GONE_MS.length) - 1];
    this._timer = setTimeout(() => (document.hidden ? null : this.check()), wait);
  }
}

function stateOf(error) {
  return error.kind === "loading" ? "loading" : "ready"; // it answers, whatever it says
}

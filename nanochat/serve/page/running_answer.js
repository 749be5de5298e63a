// One answer while it is written: takes in the events of its stream and measures its speed.
// Not here: what is done when it fails (`chat.js`).

import { answer } from "./api.js";
import { addEvent } from "./answer.js";
import { Sentences } from "./log_view.js";

/** An answer that the server is writing into a message. */
export class RunningAnswer {
  constructor(message, { grown, said }) {
    this.message = message;
    this._controller = new AbortController();
    this._sentences = new Sentences();
    [this._grown, this._said] = [grown, said];
    this._firstAt = 0;
  }

  /** End it; what has come is kept. */
  stop() {
    this._controller.abort();
  }

  /** Ask, and write what comes into the message; throw what went wrong. */
  async write(body) {
    const { message } = this;
    Object.assign(message, { parts: [], finish: "running", usage: null, seconds: 0, pieces: 0 });
    try {
      for await (const event of answer(body, this._controller.signal)) this._take(event);
    } catch (error) {
      message.finish = error.name === "AbortError" ? "stopped" : message.parts.length ? "broken" : "failed";
      if (error.name !== "AbortError") throw error;
    } finally {
      message.revision += 1;
      this._said(this._sentences.end());
    }
  }

  _take(event) {
    const { message } = this;
    if (event.finish) message.finish = event.finish;
    else if (event.usage) message.usage = { prompt: event.usage.prompt_tokens, written: event.usage.completion_tokens };
    else {
      addEvent(message.parts, event);
      this._measure();
      this._speak(event);
      this._grown(message);
    }
  }

  _measure() {
    const now = performance.now();
    this._firstAt ||= now;
    this.message.pieces += 1;
    this.message.seconds = (now - this._firstAt) / 1000;
  }

  _speak({ text, calculator }) {
    const result = calculator?.result;
    const said = this._sentences.push(text ?? (result === undefined ? "" : `Calculator: ${result}.\n`));
    if (said) this._said(said);
  }
}

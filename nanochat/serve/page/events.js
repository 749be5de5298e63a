// Server-sent events: bytes in, the JSON of each `data:` line out.
// Not here: what an event means (`api.js`).

/** Thrown where a stream holds something that is not JSON. */
export class BrokenEventError extends Error {}

/** Collects text into events; an event may come in any number of pieces. */
export class EventReader {
  constructor() {
    this._rest = "";
    this._data = [];
  }

  /** Return the data of the events that a piece of text completes. */
  push(text) {
    const lines = (this._rest + text).split("\n"); // the rest has no line end, so it is read again only once
    this._rest = lines.pop();
    return lines.map((line) => this._line(line.replace(/\r$/, ""))).filter((data) => data !== null);
  }

  _line(line) {
    if (line.startsWith("data:")) this._data.push(line.slice(5).replace(/^ /, ""));
    if (line || !this._data.length) return null; // an event ends with an empty line
    const data = this._data.join("\n");
    this._data = [];
    return data;
  }
}

/** Yield the data of the events of a response, until its end. */
export async function* eventsOf(response) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  const events = new EventReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* events.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    reader.cancel().catch(() => {}); // a reader that stops early frees the server's slot
  }
}

/** Return an event's JSON. */
export function parsed(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new BrokenEventError(`an event of the server is not JSON: ${data.slice(0, 80)}`);
  }
}

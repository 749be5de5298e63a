// What the page asks the server: which model there is, whether it is ready, and answers as they are written.
// Not here: what is done about an error, and what is shown (`chat.js`).

import { BrokenEventError, eventsOf, parsed } from "./events.js";

const KEY = "nanochat.key"; // of the session: it is gone with the tab

/** An answer of the server that is not what was asked for. */
export class ApiError extends Error {
  constructor(kind, message, retryAfter = null) {
    super(message);
    this.kind = kind; // "offline", "loading", "key", "busy", "overflow", "broken" or "refused"
    this.retryAfter = retryAfter;
  }
}

let keyHere = null; // where the browser keeps nothing

/** Return the API key of this session. */
export function apiKey() {
  try {
    return sessionStorage.getItem(KEY) ?? keyHere;
  } catch {
    return keyHere;
  }
}

/** Keep the API key until the tab closes. */
export function keepApiKey(key) {
  keyHere = key;
  try {
    sessionStorage.setItem(KEY, key);
  } catch {
    // `keyHere` has it
  }
}

/** Return `{id, longest}` of the model, `longest` in tokens or null. */
export async function model() {
  const response = await request("/v1/models");
  const first = (await response.json()).data?.[0];
  return { id: first?.id ?? "model", longest: first?.max_model_len ?? null };
}

/** Return when the server is ready; throw ApiError if it is not. */
export async function health() {
  await request("/health", { signal: AbortSignal.timeout?.(8000) });
}

/** Yield what an answer consists of: `{text}`, `{calculator}`, `{finish}` and `{usage}`. */
export async function* answer(body, signal) {
  const response = await request("/v1/chat/completions", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  let finished = false;
  try {
    for await (const data of eventsOf(response)) {
      if (data === "[DONE]") return;
      for (const event of eventsIn(parsed(data))) {
        finished ||= event.finish !== undefined;
        yield event;
      }
    }
  } catch (error) {
    if (finished) return; // the answer is whole: at most its figures are missing
    if (error instanceof ApiError || error.name === "AbortError") throw error;
    throw new ApiError("broken", "The connection broke off in the middle of the answer.");
  }
  if (!finished) throw new ApiError("broken", "The server ended the answer in the middle.");
}

function* eventsIn(chunk) {
  if (chunk.error) throw refusal(0, chunk.error);
  const choice = chunk.choices?.[0];
  const { content, calculator } = choice?.delta ?? {};
  if (content) yield { text: textIn(content) };
  if (calculator) yield { calculator: usesIn(calculator) };
  if (choice?.finish_reason) yield { finish: textIn(choice.finish_reason) };
  const counts = [chunk.usage?.prompt_tokens, chunk.usage?.completion_tokens];
  if (counts.every(Number.isFinite)) yield { usage: chunk.usage };
}

function textIn(value) {
  if (typeof value !== "string") throw new BrokenEventError("an event of the server has something else in place of a text");
  return value;
}

// An expression, a result, or both.
function usesIn(calculator) {
  const { expression, result } = calculator;
  return Object.fromEntries(
    Object.entries({ expression, result })
      .filter(([, text]) => text !== undefined && text !== null)
      .map(([name, text]) => [name, textIn(text)]),
  );
}

async function request(path, options = {}) {
  const headers = withKey(options.headers);
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("offline", "The server does not answer.");
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  throw refusal(response.status, body?.error ?? {}, response.headers.get("Retry-After"));
}

function withKey(given) {
  const key = apiKey();
  try {
    return new Headers({ ...given, ...(key ? { Authorization: `Bearer ${key}` } : {}) });
  } catch {
    throw new ApiError("key", "The key has characters that no request can carry.");
  }
}

function refusal(status, error, retryAfter = null) {
  const message = typeof error.message === "string" ? error.message : `The server answered with status ${status}.`;
  if (status === 401) return new ApiError("key", message);
  if (status === 429) return new ApiError("busy", message, Number.parseInt(retryAfter, 10) || null);
  const tooMuch = status === 400 && error.param === "messages"; // more of them, or of their characters, than are read
  if (tooMuch || error.code === "context_length_exceeded") return new ApiError("overflow", message);
  if (status === 502 || status === 503 || status === 504) return new ApiError("loading", message);
  return new ApiError(status ? "refused" : "broken", message);
}

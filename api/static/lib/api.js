// Calls of the server's API. Every URL is relative to the console, so it works below any root path.

const ROOT = new URL("../../", import.meta.url);
const STORED_KEY = "lorikeet-api-key";
const KEYLESS_PREFIX = "lorikeet-keyless-";
const events = new EventTarget();
let isOpen = false;
let askForKey = null;
let asking = null;
let numDeclined = 0; // number of key dialogs that the user has closed
let aheadMs = 0; // by which the server's clock is ahead of the browser's
const MIN_AHEAD_MS = 2000; // the header Date has whole seconds

/** An error of the API. `status` is 0 if the front end can't be reached. */
export class ApiError extends Error {
  constructor(status, message, code = null) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.code = code;
  }

  /** True if the request failed because its key is missing or not sufficient. */
  get isRefusal() {
    return this.status === 401 || this.status === 403;
  }

  /** True if the failure may pass by itself: no connection, too many requests, a restart, Redis away. */
  get isPassing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

/** Unix time in ms by the server's clock, as estimated from its replies. */
export function serverNow() {
  return Date.now() + aheadMs;
}

/** True if this tab has an API key. */
export function hasKey() {
  return sessionStorage.getItem(STORED_KEY) !== null;
}

/** This tab's API key, or null; for requests that `request` can't send. */
export function currentKey() {
  return sessionStorage.getItem(STORED_KEY);
}

/** True if the server has answered this page without a key. */
export function isServerOpen() {
  return isOpen && !hasKey();
}

/** Name in localStorage of data that a page keeps on a server without keys. `setKey` removes the data. */
export function keylessName(name) {
  return KEYLESS_PREFIX + name;
}

/** Keep an API key for this tab. null removes the key and all data that pages keep for this tab. */
export function setKey(key) {
  const names = Object.keys(localStorage).filter((name) => name.startsWith(KEYLESS_PREFIX));
  for (const name of names) localStorage.removeItem(name);
  if (key === null) sessionStorage.clear();
  else sessionStorage.setItem(STORED_KEY, key);
  events.dispatchEvent(new Event("key"));
}

/** Call `listener` whenever the key is set or forgotten. Returns a function that stops it. */
export function onKeyChange(listener) {
  events.addEventListener("key", listener);
  return () => events.removeEventListener("key", listener);
}

/**
 * Register the function that asks the user for a key when the server answers 401.
 *
 * `ask(error)` sets the key and resolves to true, or resolves to false if the user declines.
 */
export function onUnauthorized(ask) {
  askForKey = ask;
}

/** Absolute URL of an API path such as `v1/models`; used in the examples for curl and Python. */
export function urlOf(path) {
  return new URL(path.replace(/^\/+/, ""), ROOT).href;
}

/** GET `path` and return its JSON. */
export async function getJson(path, { signal } = {}) {
  const reply = await request(path, { signal });
  return readJson(reply);
}

/** Send `body` as JSON and return the answer's JSON, or null if the answer has no body. */
export async function sendJson(method, path, body, { headers, signal } = {}) {
  const options = { method, signal, headers: { ...headers } };
  if (body !== undefined && body !== null) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  return readJson(await request(path, options));
}

/**
 * Send a request with this tab's key and return the successful Response.
 *
 * On 401 it asks for a key and tries once more, unless the user closed the dialog since the request
 * was sent. Raises ApiError for every other failure, or AbortError if `signal` aborts. `body` is passed
 * to fetch unchanged (string, FormData, Blob).
 */
export async function request(path, { method = "GET", body, headers, signal } = {}) {
  for (;;) {
    const key = sessionStorage.getItem(STORED_KEY);
    const numBefore = numDeclined;
    const reply = await send(path, key, { method, body, headers, signal });
    if (key === null) isOpen = reply.ok || (isOpen && reply.status !== 401);
    if (reply.ok) return reply;
    const error = await errorOf(reply);
    signal?.throwIfAborted(); // the user has left the page that sent the request
    if (reply.status !== 401) throw error;
    // Another request may have asked for the key while this one was under way.
    if (key !== sessionStorage.getItem(STORED_KEY)) continue;
    if (numDeclined > numBefore || !(await login(error))) throw error;
  }
}

/** Ask for a key. Resolves to true once one is set. Concurrent calls share one dialog. */
export function login(error = null) {
  if (!askForKey) return Promise.resolve(false);
  asking ??= ask(error).finally(() => (asking = null));
  return asking;
}

async function ask(error) {
  const isGiven = await askForKey(error);
  if (!isGiven) numDeclined += 1;
  return isGiven;
}

/** True while the user is asked for a key. */
export function isAskingForKey() {
  return asking !== null;
}

/**
 * Iterate over server-sent events as `{event, id, data}`; `data` is a string.
 *
 * A stream of JSON objects, one on each line, has one event for each object. It uses fetch, because EventSource sends neither bodies nor an Authorization header. The iterator
 * ends when the server ends the stream, and raises ApiError if the connection breaks.
 */
export async function* sseEvents(path, { method = "GET", body, headers, signal } = {}) {
  const reply = await request(path, {
    method,
    body,
    signal,
    headers: { Accept: "text/event-stream", ...headers },
  });
  const isLines = reply.headers.get("Content-Type")?.startsWith("application/x-ndjson");
  const [end, parse] = isLines ? ["\n", lineEvent] : [/\r?\n\r?\n/, parseEvent];
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  try {
    for (;;) {
      const { done, value } = await readChunk(reader, signal);
      if (done) return;
      const parts = (pending + value).split(end);
      pending = parts.pop();
      for (const part of parts) {
        const event = parse(part);
        if (event) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function readChunk(reader, signal) {
  try {
    return await reader.read();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, "The connection to the front end broke.");
  }
}

function lineEvent(text) {
  return { event: "message", id: null, data: text };
}

function parseEvent(text) {
  const event = { event: "message", id: null, data: null };
  for (const line of text.split(/\r?\n/)) {
    const colon = line.indexOf(":");
    if (colon === 0 || line === "") continue;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") event.data = event.data === null ? value : `${event.data}\n${value}`;
    else if (field === "event" || field === "id") event[field] = value;
  }
  return event.data === null ? null : event;
}

async function send(path, key, options) {
  const headers = new Headers(options.headers);
  if (key !== null) headers.set("Authorization", `Bearer ${key}`);
  try {
    const init = { ...options, headers, cache: "no-store", credentials: "same-origin" };
    const reply = await fetch(urlOf(path), init);
    noteClock(reply);
    return reply;
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError(0, "The front end can't be reached.");
  }
}

function noteClock(reply) {
  const difference = Date.parse(reply.headers.get("Date")) - Date.now();
  if (!Number.isNaN(difference)) aheadMs = Math.abs(difference) < MIN_AHEAD_MS ? 0 : difference;
}

async function errorOf(reply) {
  const text = await reply.text().catch(() => "");
  let error = null;
  try {
    error = JSON.parse(text).error;
  } catch {
    // The reply may come from a proxy and have another format.
  }
  const message = error?.message ?? (text.slice(0, 300) || reply.statusText || "The request failed.");
  return new ApiError(reply.status, message, error?.code ?? null);
}

async function readJson(reply) {
  const text = await reply.text();
  if (text === "") return null;
  try {
    return JSON.parse(text);
  } catch {
    throw new ApiError(reply.status, `The answer of ${new URL(reply.url).pathname} is not JSON.`);
  }
}

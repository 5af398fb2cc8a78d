// The Pool page: what the workers hold and do, second by second.

import { ApiError, sseEvents } from "../lib/api.js";
import { fill, h } from "../lib/dom.js";
import { emptyBox, errorBox } from "../lib/notices.js";
import { poolView } from "./pool/view.js";

const RECONNECT_MS = 1000;
const SILENCE_MS = 10_000;

/** Show the pool in `root` until the returned function is called. */
export function mount(root) {
  const stop = new AbortController();
  follow(root, stop.signal);
  return () => stop.abort();
}

/** Follow the pool for good. A broken stream is reported and opened again; a refusal ends it. */
async function follow(root, signal) {
  const view = poolView();
  fill(root, view.element);
  while (!signal.aborted) {
    try {
      await followOnce(view, signal);
    } catch (error) {
      if (signal.aborted) return;
      if (!isPassing(error))
        return fill(
          root,
          refusal(error, () => follow(root, signal)),
        );
      view.showLost(error);
    }
    await pause(RECONNECT_MS, signal);
  }
}

/** Show the events of one stream until it ends, breaks, or is silent for too long. */
async function followOnce(view, signal) {
  const silence = new AbortController();
  let timer = null;
  const expectMore = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silence.abort(), SILENCE_MS);
  };
  try {
    const events = sseEvents("v1/pool/events", { signal: AbortSignal.any([signal, silence.signal]) });
    for await (const { event, data } of events) {
      expectMore();
      if (event === "pool") await view.showPool(JSON.parse(data));
      else if (event === "incident") view.showIncident(JSON.parse(data));
      else if (event === "error") view.showLost(new ApiError(503, JSON.parse(data).error.message));
    }
  } catch (error) {
    throw silence.signal.aborted ? new ApiError(0, "The front end is silent.") : error;
  } finally {
    clearTimeout(timer);
  }
  throw new ApiError(0, "The front end ended the stream.");
}

/** True for failures that pass by themselves: no connection, a restart, Redis down. */
function isPassing(error) {
  return error instanceof ApiError && (error.status === 0 || error.status === 429 || error.status >= 500);
}

function refusal(error, retry) {
  if (error.status !== 403) return errorBox(error, retry);
  return emptyBox(
    "This key may not see the pool.",
    h(
      "p",
      null,
      "The Pool page needs a key with admin rights. ",
      h("a", { href: "#/compare" }, "Compare"),
      " and ",
      h("a", { href: "#/jobs" }, "Jobs"),
      " work with this one.",
    ),
  );
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end);
  });
}

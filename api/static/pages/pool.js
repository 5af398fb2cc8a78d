// The Pool page: the adapters and jobs of each worker, updated every second.

import { ApiError, isAskingForKey, sseEvents } from "../lib/api.js";
import { fill } from "../lib/dom.js";
import { hashQuery } from "../lib/location.js";
import { refusalBox } from "../lib/notices.js";
import { sleep, visible } from "../lib/polling.js";
import { poolView } from "./pool/view.js";

const RECONNECT_MS = 1000;
const SILENCE_MS = 10_000;

/** Show the pool in `root` until the returned function is called. */
export function mount(root) {
  const stop = new AbortController();
  follow(root, stop.signal);
  return () => stop.abort();
}

/**
 * Follow the pool until the page is left. A broken stream is reported and opened again. A refusal ends it.
 *
 * A hidden tab has no stream: browsers open six connections per server, which other tabs need.
 */
async function follow(root, signal) {
  const view = poolView(signal);
  fill(root, view.element);
  const reveal = () => view.revealWorker(hashQuery().get("worker"));
  addEventListener("hashchange", reveal, { signal });
  reveal();
  for (;;) {
    await visible(signal);
    if (signal.aborted) return;
    try {
      await followOnce(view, signal);
    } catch (error) {
      if (signal.aborted) return;
      if (document.hidden) continue;
      if (!error.isPassing) {
        const retry = () => follow(root, signal);
        fill(root, refusalBox(error, { what: "the pool", page: "Pool", retry }));
        return;
      }
      view.showLost(error);
    }
    await sleep(RECONNECT_MS, signal);
  }
}

/** Show the events of one stream until it ends, breaks, is silent for too long, or the tab is hidden. */
async function followOnce(view, signal) {
  const closing = new AbortController();
  let timer = null;
  const expectMore = () => {
    clearTimeout(timer);
    timer = setTimeout(() => (isAskingForKey() ? expectMore() : closing.abort()), SILENCE_MS);
  };
  const hide = () => document.hidden && !isAskingForKey() && closing.abort();
  document.addEventListener("visibilitychange", hide);
  expectMore();
  try {
    const events = sseEvents("v1/pool/events", { signal: AbortSignal.any([signal, closing.signal]) });
    for await (const { event, data } of events) {
      expectMore();
      if (event === "pool") await view.showPool(JSON.parse(data));
      else if (event === "incident") view.showIncident(JSON.parse(data));
      else if (event === "error") view.showLost(new ApiError(503, JSON.parse(data).error.message));
    }
  } catch (error) {
    throw closing.signal.aborted ? new ApiError(0, "The front end is silent.") : error;
  } finally {
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", hide);
  }
  throw new ApiError(0, "The front end ended the stream.");
}

// The events of a job, from its acceptance to its end.

import { fill, h } from "../../lib/dom.js";
import { clock, duration, plural } from "../../lib/format.js";
import { workerLink } from "../pool/names.js";

const TEXTS = {
  accepted: "Accepted",
  queued: "Queued",
  claimed: "Claimed",
  loaded: "Adapter loaded",
  first_token: "First token",
  worker_lost: "Worker lost",
  requeued: "Queued again",
  cancelling: "Cancellation asked for",
  completed: "Completed",
  failed: "Failed",
  cancelled: "Cancelled",
  dead: "Dead",
  expired: "Expired",
};
const TONES = { worker_lost: "bad", failed: "bad", dead: "bad", requeued: "warn", cancelling: "warn", cancelled: "warn", expired: "warn", completed: "good" };

/** Build the section. `show(job)` takes the body of GET /v1/jobs/{id}. */
export function timelineSection() {
  const list = h("ol", { class: "timeline" });
  const element = h("section", { class: "stack", hidden: true, "aria-labelledby": "timeline-title" }, h("h3", { id: "timeline-title" }, "Timeline"), list);
  let numShown = 0;

  function show({ timeline, timeline_left_out: numLeftOut }) {
    element.hidden = timeline.length === 0;
    if (timeline.length === numShown) return;
    numShown = timeline.length;
    fill(list, timeline.map((entry, index) => item(entry, timeline[index - 1])), numLeftOut > 0 && h("li", { class: "muted" }, `${plural(numLeftOut, "event")} in the middle left out`));
  }

  return { element, show };
}

function item({ event, at, worker, reason }, before) {
  const where = worker && ["worker ", h("a", { href: workerLink(worker) }, worker)];
  return h(
    "li", { class: `timeline-${TONES[event] ?? "info"}`, dataset: { event } },
    h("time", { class: "muted", datetime: new Date(at * 1000).toISOString() }, clock(at)),
    h("strong", null, TEXTS[event] ?? event),
    h("span", { class: "muted num" }, before ? `+${duration(Math.max(0, at - before.at))}` : ""),
    h("span", { class: "timeline-detail" }, where, where && reason ? ", " : "", reason),
  );
}

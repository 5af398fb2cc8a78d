// The table of jobs.

import { serverNow } from "../../lib/api.js";
import { h, setAttr, setText } from "../../lib/dom.js";
import { count, duration } from "../../lib/format.js";

const TONES = { queued: "badge-info", running: "badge-info", done: "badge-good", cancelled: "badge-warn", expired: "badge-warn", failed: "badge-bad", dead: "badge-bad" };
export const STATES = Object.keys(TONES);
const LABELS = ["State", "Model", "Id", "Tenant", "Age", "Duration", "Tokens", "Where", ""];
const NUMBERS = new Set(["Age", "Duration", "Tokens"]);
const ID_SHOWN = 8; // first characters of a job's id; the whole id is in its dialog and title

/** True while a job waits or runs. */
export function isUnfinished({ state }) {
  return state === "queued" || state === "running";
}

/** True if the server may have kept the job's request, so that it can be sent again. */
export function mayRetry({ state, error }) {
  return state === "dead" || (state === "failed" && error?.type === "server_error");
}

export function showState(badge, { state }) {
  setText(badge, state);
  setAttr(badge, "class", `badge ${TONES[state] ?? ""}`);
}

/** Seconds since a Unix time in milliseconds. */
export function ageS(ms) {
  return Math.max(0, serverNow() - ms) / 1000;
}

/**
 * Seconds until a worker takes a waiting job; null if unknown. `pool` is the body of GET /v1/pool or
 * null. Fair queueing serves all queues side by side, so they become empty at the same time.
 */
export function estimateS(job, pool) {
  const queue = pool?.adapters.find(({ version }) => version === job.version);
  const perS = pool?.rates.requests_per_s;
  if (!job.position || !queue?.waiting || !perS) return null;
  return ((Math.min(job.position, queue.waiting) / queue.waiting) * pool.queue.waiting) / perS;
}

/** Where a job is: its place in the queue, its worker, or why it ended without an answer. */
export function placeOf(job, pool) {
  if (job.state === "queued") {
    const seconds = estimateS(job, pool);
    const place = job.position ? `position ${count(job.position)}` : "waits";
    return seconds === null ? place : `${place}, about ${duration(Math.max(1, Math.ceil(seconds)))}`;
  }
  if (job.state === "running") return job.worker ? `on ${job.worker}` : "";
  return job.error?.code ?? "";
}

export function headRow() {
  return h("tr", null, LABELS.map((label) => h("th", { scope: "col", class: NUMBERS.has(label) ? "num" : null }, label || h("span", { class: "visually-hidden" }, "Actions"))));
}

/** A row of the table. Its buttons call `actions.cancel(job)` and `actions.retry(job)`. `actions.hash(id)` is a job's link. */
export class JobRow {
  constructor(job, actions) {
    this.badge = h("span");
    this.actions = actions;
    this.link = h("a", { class: "job-link" });
    this.version = h("span", { class: "muted mono" });
    this.id = h("td", { "data-label": "Id", class: "mono", title: job.id }, job.id.slice(0, ID_SHOWN));
    this.tenant = cell("Tenant");
    this.age = cell("Age", "num");
    this.duration = cell("Duration", "num");
    this.tokens = cell("Tokens", "num");
    this.place = cell("Where", "job-place wide");
    this.cancel = h("button", { type: "button", class: "button button-small button-danger", onclick: () => actions.cancel(this.job) }, "Cancel");
    this.retry = h("button", { type: "button", class: "button button-small", onclick: () => actions.retry(this.job) }, "Retry");
    this.element = h(
      "tr", { class: "job" },
      h("td", null, this.badge),
      h("td", { class: "job-model" }, this.link, this.version),
      this.id, this.tenant, this.age, this.duration, this.tokens, this.place,
      h("td", { class: "job-actions wide" }, this.cancel, this.retry),
    );
  }

  update(job, pool) {
    this.job = job;
    showState(this.badge, job);
    setText(this.link, job.model);
    setAttr(this.link, "aria-label", `${job.model}, job ${job.id}`);
    setText(this.version, versionOf(job));
    setAttr(this.link, "href", this.actions.hash(job.id));
    setText(this.tenant, job.tenant);
    setText(this.age, duration(ageS(job.created_ms)));
    setText(this.duration, duration(job.duration_s));
    setText(this.tokens, job.usage ? count(job.usage.total_tokens) : "–");
    setText(this.place, placeOf(job, pool));
    this.cancel.hidden = !isUnfinished(job);
    setAttr(this.cancel, "aria-label", `Cancel job ${job.id}`);
    this.retry.hidden = !mayRetry(job);
    setAttr(this.retry, "aria-label", `Retry job ${job.id}`);
  }
}

function cell(label, tone = null) {
  return h("td", { "data-label": label, class: tone });
}

function versionOf({ model, version }) {
  return version === model ? "" : (version.split("@").at(-1) ?? "");
}

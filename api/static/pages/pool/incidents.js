// Incidents of the pool, newest first.

import { h, keyed, setText } from "../../lib/dom.js";
import { clock, count } from "../../lib/format.js";
import { hashOf } from "../../lib/location.js";
import { workerLink, workerName } from "./names.js";

const MAX_SHOWN = 50;
/** Tone and sign of each kind. Other kinds, such as those of newer servers, are neutral. */
const LOOKS = {
  worker_lost: ["bad", "!"],
  job_dead: ["bad", "!"],
  adapter_quarantined: ["bad", "!"],
  front_end_lost: ["bad", "!"],
  control_lost: ["bad", "!"],
  redis_lost: ["bad", "!"],
  adapter_load_failed: ["bad", "!"],
  worker_stalled: ["warn", "▲"],
  redis_restarted: ["warn", "↻"],
  adapter_rolled_back: ["warn", "↶"],
  redis_back: ["good", "✓"],
  worker_joined: ["good", "+"],
  front_end_joined: ["good", "+"],
  control_joined: ["good", "+"],
  adapter_loaded: ["good", "+"],
  adapter_replaced: ["good", "↻"],
  adapter_released: ["good", "✓"],
};
const NEUTRAL = ["info", "–"];

/** Build the panel. `live` announces incidents that arrive while the page is open. */
export function incidents(live) {
  const list = h("ol", { class: "incident-list" });
  const none = h("p", { class: "muted panel-body" }, "Nothing happened lately.");
  const number = h("span", { class: "badge" }, "0");
  const element = h(
    "section",
    { class: "panel incidents", "aria-labelledby": "incidents-title" },
    h(
      "div",
      { class: "panel-head" },
      h("h2", { id: "incidents-title" }, "Incidents"),
      h("span", { class: "spacer" }),
      number,
    ),
    h(
      "div",
      { class: "incident-scroll", tabindex: "0", role: "region", "aria-label": "List of incidents" },
      none,
      list,
    ),
  );
  let shown = [];

  /** Show the pool's list, which holds every incident that `add` showed before. */
  function update({ incidents: all }) {
    const newest = all.slice(0, MAX_SHOWN);
    const known = new Set(shown.map(({ id }) => id));
    const fresh = newest.filter(({ id }) => !known.has(id));
    if (shown.length && fresh.length)
      live.say(fresh.map(({ text, worker }) => readable(text, worker)).join(". "));
    shown = newest;
    show();
  }

  function add(incident) {
    if (shown.some(({ id }) => id === incident.id)) return;
    shown = [incident, ...shown].slice(0, MAX_SHOWN);
    live.say(readable(incident.text, incident.worker));
    show();
  }

  function show() {
    none.hidden = shown.length > 0;
    setText(number, count(shown.length));
    keyed(list, shown, { keyOf: ({ id }) => id, create: entry });
  }

  /** Ids of the workers whose deaths are among the shown incidents. */
  function lostWorkers() {
    return new Set(
      shown.filter(({ kind, worker }) => worker && kind === "worker_lost").map(({ worker }) => worker),
    );
  }

  return { element, update, add, lostWorkers };
}

function entry(incident) {
  const { time, kind, text, worker } = incident;
  const [tone, sign] = LOOKS[kind] ?? NEUTRAL;
  return h(
    "li",
    { class: "incident", dataset: { kind }, title: text },
    h("span", { class: `incident-sign badge badge-${tone}`, "aria-hidden": "true" }, sign),
    h("span", { class: "incident-text" }, linked(readable(text, worker), linksOf(incident))),
    h("time", { class: "muted", datetime: new Date(time * 1000).toISOString() }, clock(time)),
  );
}

/** "good", "warn", "bad" or "info". */
export function toneOf(kind) {
  return (LOOKS[kind] ?? NEUTRAL)[0];
}

/** The text as a sentence with the worker's short name, which the grid also shows. */
export function readable(text, worker) {
  const short = worker ? text.replaceAll(worker, workerName(worker)) : text;
  return short.charAt(0).toUpperCase() + short.slice(1);
}

/** Links by the words of the text that they replace. */
function linksOf({ worker, adapter, job }) {
  const links = {};
  if (worker) links[workerName(worker)] = workerLink(worker);
  if (adapter) links[adapter] = hashOf("adapters", { path: adapter.split("@")[0] });
  if (job) links[job] = hashOf("jobs", { path: job });
  return links;
}

/** The text, in which the first occurrence of each word is a link. */
function linked(text, links) {
  for (const [word, href] of Object.entries(links)) {
    const at = text.indexOf(word);
    if (at < 0) continue;
    const rest = Object.fromEntries(Object.entries(links).filter(([other]) => other !== word));
    return [linked(text.slice(0, at), rest), h("a", { href }, word), linked(text.slice(at + word.length), rest)];
  }
  return text;
}

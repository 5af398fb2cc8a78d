// The plots of the last five minutes, of an hour, or of a day.

import { getJson } from "../../lib/api.js";
import { fill, h, setAttr, setText } from "../../lib/dom.js";
import { lineChart } from "../../lib/charts.js";
import { count, duration } from "../../lib/format.js";
import { hashOf, hashQuery, replaceHash } from "../../lib/location.js";
import { poll } from "../../lib/polling.js";
import { readable, toneOf } from "./incidents.js";

const WINDOWS_S = { "5m": 300, "1h": 3600, "24h": 86_400 };
const LIVE = "5m";
const REFRESH_MS = 15_000;
const PER_SECOND = (value) => (value < 10 ? value.toFixed(value < 1 ? 2 : 1) : count(value));

/** Build the plots. `update` takes a pool whose history may hold only the new points. */
export function history(leaving) {
  const plots = h("div", { class: "columns" });
  const problem = h("span", { class: "error-text", role: "status" });
  const buttons = Object.keys(WINDOWS_S).map((name) => h("button", { type: "button", class: "button button-small", onclick: () => chosen(name) }, name));
  const element = h(
    "section", { class: "stack", "aria-labelledby": "plots-title" },
    h("h2", { id: "plots-title", class: "visually-hidden" }, "Plots"),
    h("div", { class: "row" }, h("div", { class: "row segmented", role: "group", "aria-label": "Time of the plots" }, buttons), problem),
    plots,
  );
  let points = [];
  let latest = null;
  let charts = [];
  let reading = null;
  let window = null;

  function update(pool) {
    latest = pool;
    // Later points are from before Redis' clock was set back.
    points = points.filter(([time]) => time <= pool.time);
    const last = points.at(-1)?.[0] ?? 0;
    points.push(...pool.history.filter(([time]) => time > last));
    points = points.filter(([time]) => time > pool.time - WINDOWS_S[LIVE]);
    if (window === LIVE) showLive();
  }

  function showLive() {
    const marks = latest.incidents.map((each) => markOf({ ...each, at: each.time }));
    const [tokens, ttft, jobs] = charts;
    tokens.update(points.map(([time, rate]) => [time, rate]), marks);
    ttft.update(points.map(([time, , p50, p95]) => [time, p50, p95]), marks);
    jobs.update(points.map(([time, , , , waiting, running]) => [time, running, waiting]), marks);
  }

  function chosen(name) {
    replaceHash(hashOf("pool", { query: { window: name === LIVE ? "" : name } }));
    choose(name);
  }

  function choose(name) {
    if (name === window) return;
    reading?.abort();
    window = name;
    buttons.forEach((button) => setAttr(button, "aria-pressed", String(button.textContent === name)));
    charts = chartsOf(name);
    fill(plots, charts.map((chart) => h("div", { class: "panel" }, chart.element)));
    setText(problem, "");
    if (name === LIVE) {
      if (latest) showLive();
      return;
    }
    reading = new AbortController();
    const signal = AbortSignal.any([leaving, reading.signal]);
    poll(() => read(name, signal), { everyMs: REFRESH_MS, signal });
  }

  async function read(name, signal) {
    try {
      const body = await getJson(`v1/pool/history?window=${name}`, { signal });
      if (signal.aborted) return;
      setText(problem, "");
      showStored(charts, body);
    } catch (error) {
      if (!signal.aborted) setText(problem, error.message);
    }
  }

  const wanted = hashQuery().get("window");
  choose(Object.hasOwn(WINDOWS_S, wanted) ? wanted : LIVE);
  return { element, update };
}

function chartsOf(name) {
  const windowS = WINDOWS_S[name];
  const chart = (title, format, ...series) => lineChart({ title, format, windowS, series: series.map(([each, tone]) => ({ name: each, tone })) });
  const tokens = chart("Tokens per second", count, ["tokens/s", "accent"]);
  if (name === LIVE) {
    return [
      tokens,
      chart("Time to first token", duration, ["p50", "blue"], ["p95", "orange"]),
      chart("Jobs", count, ["running", "accent"], ["waiting", "orange"]),
    ];
  }
  return [
    tokens,
    chart("Time to first token", duration, ["p50", "blue"]),
    chart("Waiting jobs", count, ["waiting", "orange"]),
    chart("Jobs per second", PER_SECOND, ["ended", "accent"], ["failed", "orange"]),
  ];
}

/** Show the body of GET /v1/pool/history. */
function showStored([tokens, ttft, waiting, jobs], { started_at: start, step_s: step, series, incidents }) {
  const marks = incidents.map(markOf);
  const points = (...names) => series[names[0]].map((_, i) => [start + i * step, ...names.map((name) => series[name][i])]);
  tokens.update(points("tokens_per_s"), marks);
  ttft.update(points("ttft_p50_s"), marks);
  waiting.update(points("waiting"), marks);
  jobs.update(points("jobs_per_s", "failed_per_s"), marks);
}

function markOf({ at, kind, text, worker }) {
  return { at, text: readable(text, worker), tone: toneOf(kind) };
}

// The plots of the last five minutes.

import { h } from "../../lib/dom.js";
import { lineChart } from "../../lib/charts.js";
import { count, duration } from "../../lib/format.js";

const KEPT_S = 300;

/** Build the plots. `update` takes a pool whose history may hold only the new points. */
export function history() {
  const tokens = lineChart({
    title: "Tokens per second",
    format: count,
    series: [{ name: "tokens/s", tone: "accent" }],
  });
  const ttft = lineChart({
    title: "Time to first token",
    format: duration,
    series: [
      { name: "p50", tone: "blue" },
      { name: "p95", tone: "orange" },
    ],
  });
  const jobs = lineChart({
    title: "Jobs",
    format: count,
    series: [
      { name: "running", tone: "accent" },
      { name: "waiting", tone: "orange" },
    ],
  });
  const element = h(
    "div",
    { class: "columns" },
    [tokens, ttft, jobs].map((chart) => h("div", { class: "panel" }, chart.element)),
  );
  let points = [];

  function update(pool) {
    // Later points are from before Redis' clock was set back.
    points = points.filter(([time]) => time <= pool.time);
    const last = points.at(-1)?.[0] ?? 0;
    points.push(...pool.history.filter(([time]) => time > last));
    points = points.filter(([time]) => time > pool.time - KEPT_S);
    tokens.update(points.map(([time, rate]) => [time, rate]));
    ttft.update(points.map(([time, , p50, p95]) => [time, p50, p95]));
    jobs.update(points.map(([time, , , , waiting, running]) => [time, running, waiting]));
  }

  return { element, update };
}

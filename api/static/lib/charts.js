// Small line charts in SVG.

import { h, setAttr, setText, svg } from "./dom.js";
import { clock, duration } from "./format.js";

const WIDTH = 600;
const MARK_REACH = 0.02; // part of the width at which a mark's text appears around the pointer
const MARK_TONES = ["info", "good", "warn", "bad"];

/**
 * Build a line chart over time.
 *
 * `series`: `[{name, tone}]`; `tone` is "accent", "blue" or "orange" and picks colour and dashes.
 * `format(value)` gives the text of a value. Returns `{element, update(points, marks)}`, where `points` are
 * `[time in s, value or null, ...]` in ascending time, with one value per series. `marks` are incidents
 * `{at, text, tone}`; `tone` is "info", "good", "warn" or "bad".
 */
export function lineChart({ title, series, format, height = 96, windowS = 300 }) {
  const lines = series.map(({ tone }) =>
    svg("path", { class: `chart-line chart-${tone}`, fill: "none", "vector-effect": "non-scaling-stroke" }),
  );
  const cursor = svg("line", {
    class: "chart-cursor",
    y1: 0,
    y2: height,
    "vector-effect": "non-scaling-stroke",
    visibility: "hidden",
  });
  const grid = [0.5, 1].map((part) =>
    svg("line", {
      class: "chart-grid",
      x1: 0,
      x2: WIDTH,
      y1: height * part,
      y2: height * part,
      "vector-effect": "non-scaling-stroke",
    }),
  );
  const signs = MARK_TONES.map((tone) => svg("path", { class: `chart-mark chart-mark-${tone}`, fill: "none", "vector-effect": "non-scaling-stroke" }));
  const area = svg("path", { class: `chart-area chart-${series[0].tone}` });
  const picture = svg(
    "svg",
    {
      class: "chart-picture",
      viewBox: `0 0 ${WIDTH} ${height}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": title,
    },
    grid,
    signs,
    area,
    lines,
    cursor,
  );
  picture.style.setProperty("height", `${height}px`);
  const values = series.map(() => h("b", { class: "chart-value" }, "–"));
  const legend = series.map(({ name, tone }, i) =>
    h("span", { class: "chart-key" }, h("i", { class: `chart-swatch chart-${tone}` }), name, " ", values[i]),
  );
  const peak = h("span", { class: "chart-peak" });
  const start = h("span", null, `${agoText(windowS)} ago`);
  const note = h("span", { class: "chart-note" });
  const end = h("span", null, "now");
  const element = h(
    "figure",
    { class: "chart" },
    h(
      "figcaption",
      { class: "chart-head" },
      h("h3", null, title),
      h("span", { class: "chart-legend" }, legend),
    ),
    h("div", { class: "chart-plot" }, peak, picture),
    h("div", { class: "chart-axis", "aria-hidden": "true" }, start, note, end),
  );
  let shown = [];
  let shownMarks = [];
  let pointed = null;

  function update(points, marks = []) {
    shown = points;
    const now = points.length ? points.at(-1)[0] : 0;
    const top = niceTop(Math.max(0, ...points.flatMap((point) => point.slice(1).map((value) => value ?? 0))));
    const x = (time) => Math.max(0, WIDTH - ((now - time) / windowS) * WIDTH);
    const y = (value) => height - (value / top) * (height - 4);
    lines.forEach((line, i) => setAttr(line, "d", pathOf(points, i + 1, x, y)));
    setAttr(area, "d", areaOf(points, x, y, height));
    shownMarks = points.length ? marks.filter(({ at }) => at > now - windowS && at <= now) : [];
    MARK_TONES.forEach((tone, i) => setAttr(signs[i], "d", shownMarks.filter((mark) => mark.tone === tone).map(({ at }) => `M${x(at).toFixed(1)} 0V${height}`).join("")));
    setText(peak, points.length ? format(top) : "");
    showValues();
  }

  function showValues() {
    const point = pointed === null ? shown.at(-1) : nearest(shown, pointed, windowS);
    const texts = series.map((_, i) => textOf(point?.[i + 1] ?? null));
    texts.forEach((text, i) => setText(values[i], text));
    setText(end, pointed === null || !point ? "now" : `${duration(shown.at(-1)[0] - point[0])} ago`);
    setText(note, markText());
    if (pointed === null) {
      setAttr(
        picture,
        "aria-label",
        `${title}: ${series.map(({ name }, i) => `${name} ${texts[i]}`).join(", ")}`,
      );
    }
  }

  /** The incident at the pointer, if any. */
  function markText() {
    if (pointed === null || !shownMarks.length) return "";
    const time = shown.at(-1)[0] - (1 - pointed) * windowS;
    const mark = shownMarks.reduce((best, each) => (Math.abs(each.at - time) < Math.abs(best.at - time) ? each : best));
    return Math.abs(mark.at - time) < MARK_REACH * windowS ? `${clock(mark.at)} ${mark.text}` : "";
  }

  function textOf(value) {
    return value === null ? "–" : format(value);
  }

  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    pointed = (event.clientX - box.left) / box.width;
    for (const name of ["x1", "x2"]) cursor.setAttribute(name, pointed * WIDTH);
    cursor.setAttribute("visibility", "visible");
    showValues();
  });
  picture.addEventListener("pointerleave", () => {
    pointed = null;
    cursor.setAttribute("visibility", "hidden");
    showValues();
  });
  return { element, update };
}

function agoText(seconds) {
  return seconds < 3600 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

/** A round number that leaves room above `value` for the label. */
function niceTop(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15].find((step) => step * power >= value * 1.2);
}

/** The line of a series, with gaps where values are null. */
function pathOf(points, column, x, y) {
  let path = "";
  let isDown = false;
  for (const point of points) {
    const value = point[column];
    if (value === null || value === undefined) isDown = false;
    else {
      path += `${isDown ? "L" : "M"}${x(point[0]).toFixed(1)} ${y(value).toFixed(1)}`;
      isDown = true;
    }
  }
  return path;
}

/** The area below the first series, with the same gaps as its line. */
function areaOf(points, x, y, height) {
  return runsOf(points)
    .map((run) => `${pathOf(run, 1, x, y)}L${x(run.at(-1)[0]).toFixed(1)} ${height}L${x(run[0][0]).toFixed(1)} ${height}Z`)
    .join("");
}

/** Runs of at least two points that have a value of the first series. */
function runsOf(points) {
  const runs = [[]];
  for (const point of points) {
    if (point[1] === null || point[1] === undefined) runs.push([]);
    else runs.at(-1).push(point);
  }
  return runs.filter((run) => run.length > 1);
}

function nearest(points, part, windowS) {
  if (!points.length) return undefined;
  const time = points.at(-1)[0] - (1 - part) * windowS;
  return points.reduce((best, point) =>
    Math.abs(point[0] - time) < Math.abs(best[0] - time) ? point : best,
  );
}

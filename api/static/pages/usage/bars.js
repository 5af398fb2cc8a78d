// A bar per day, of the tokens of its prompts and answers.

import { fill, h, svg } from "../../lib/dom.js";
import { count } from "../../lib/format.js";

const HEIGHT = 90;
const DAY_MS = 86_400_000;

/** Build the chart. `show(days, {start, end})` takes rows of GET /v1/usage that are grouped by day. */
export function tokenBars() {
  const element = h("figure", { class: "usage-bars" });

  function show(days, { start, end }) {
    const byDay = new Map(days.map((row) => [row.day, row]));
    const all = [];
    for (let time = Date.parse(start); time <= Date.parse(end); time += DAY_MS) all.push(new Date(time).toISOString().slice(0, 10));
    const tokens = (day) => [byDay.get(day)?.prompt_tokens ?? 0, byDay.get(day)?.completion_tokens ?? 0];
    const top = Math.max(1, ...all.map((day) => tokens(day)[0] + tokens(day)[1]));
    const label = `Tokens per day from ${start} to ${end}; at most ${count(top)}`;
    const picture = svg("svg", { viewBox: `0 0 ${all.length} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label, height: HEIGHT }, all.map((day, i) => bar(day, i, tokens(day), top)));
    fill(
      element, picture,
      h("figcaption", { class: "muted row" }, h("span", null, start), h("span", { class: "spacer" }), h("span", null, `${count(top)} tokens at most; `, h("i", { class: "chart-swatch chart-accent" }), " answers, ", h("i", { class: "chart-swatch chart-blue" }), " prompts"), h("span", { class: "spacer" }), h("span", null, end)),
    );
  }

  return { element, show };
}

function bar(day, index, [prompt, completion], top) {
  const scale = (value) => (value / top) * HEIGHT;
  const rect = (tone, bottom, value) => svg("rect", { class: `usage-bar chart-${tone}`, x: index + 0.1, width: 0.8, y: HEIGHT - scale(bottom + value), height: scale(value) });
  return svg("g", null, svg("title", null, `${day}: ${count(prompt)} prompt tokens, ${count(completion)} answer tokens`), rect("accent", 0, completion), rect("blue", completion, prompt));
}

// The grid of adapters (rows) and workers (columns).
//
// Every second up to 100 x 16 cells may change. Cells are compared with what they show, and only
// changed ones touch the DOM. Rows are built and laid out in slices, so that no task blocks the browser.

import { h, keyed, setText } from "../../lib/dom.js";
import { count } from "../../lib/format.js";
import { columnHeads } from "./grid_columns.js";
import { moveByKeys } from "./grid_keys.js";
import { gridRow } from "./grid_row.js";
import { rowsOf } from "./grid_rows.js";
import { inSlices, nextFrame } from "../../lib/slices.js";

const LEGEND = [
  ["resident", "●", "resident"],
  ["running", "2", "jobs running"],
  ["loading", "◐", "loading"],
  ["host", "○", "in host memory"],
];
const HINT = "Arrow keys move over the grid.";

/**
 * Build the panel. `lostWorkers()` returns the ids of the workers that are known to have died.
 * `act(name, verb)` pauses or resumes an adapter.
 */
export function grid(lostWorkers, act) {
  const filter = h("input", {
    type: "search",
    class: "grid-filter",
    placeholder: "Filter adapters",
    "aria-label": "Filter adapters",
    autocomplete: "off",
    spellcheck: "false",
  });
  const order = h(
    "select",
    { class: "grid-order", "aria-label": "Order of the adapters" },
    ["name", "waiting", "running", "requests"].map((value) => h("option", { value }, `by ${value}`)),
  );
  const shownCount = h("span", { class: "badge" });
  const heads = columnHeads();
  const rows = h("div", { role: "rowgroup" });
  const table = h(
    "div",
    { class: "grid", role: "grid", "aria-labelledby": "grid-title", "aria-describedby": "grid-readout" },
    h("div", { role: "rowgroup", class: "grid-head" }, heads.element),
    rows,
  );
  const readout = h("p", { class: "grid-readout muted", id: "grid-readout" }, HINT);
  const element = h(
    "section",
    { class: "panel grid-panel", "aria-labelledby": "grid-title" },
    h(
      "div",
      { class: "panel-head" },
      h("h2", { id: "grid-title" }, "Models on workers"),
      shownCount,
      h("span", { class: "spacer" }),
      h("div", { class: "grid-tools" }, filter, order),
    ),
    h("div", { class: "grid-scroll" }, table),
    h("div", { class: "grid-foot" }, readout, legend()),
  );
  let latest = null;
  let turn = Promise.resolve();

  /** Show a pool. Calls wait for each other, since building yields to the browser. */
  function update(pool) {
    latest = pool;
    return (turn = turn.then(() => build(latest)));
  }

  async function build(pool) {
    const columns = heads.update(pool, lostWorkers());
    table.style.setProperty("--workers", columns.length);
    const wanted = rowsOf(pool, { filter: filter.value, order: order.value });
    setText(shownCount, count(wanted.length));
    const nodes = new Map(rows.keyedNodes);
    const showRow = (row) => {
      const node = nodes.get(row.version) ?? gridRow(act);
      node.show(row, columns);
      nodes.set(row.version, node);
    };
    const arrange = () =>
      keyed(
        rows,
        wanted.filter(({ version }) => nodes.has(version)),
        { keyOf: ({ version }) => version, create: ({ version }) => nodes.get(version) },
      );
    await inSlices(wanted, showRow, async () => {
      arrange();
      await nextFrame();
    });
    arrange();
    setRoving();
  }

  /** Exactly one cell is in the tab order. */
  function setRoving() {
    if (table.querySelector('[tabindex="0"]')) return;
    rows.querySelector('[tabindex="-1"]')?.setAttribute("tabindex", "0");
  }

  const showAgain = () => latest && update(latest);
  filter.addEventListener("input", showAgain);
  order.addEventListener("change", showAgain);
  moveByKeys(table);
  for (const type of ["focusin", "pointerover"]) {
    table.addEventListener(type, ({ target }) => {
      const cell = target.closest("[aria-label]");
      if (cell && cell !== table) setText(readout, cell.getAttribute("aria-label"));
    });
  }
  table.addEventListener("pointerleave", () => setText(readout, HINT));
  return { element, update };
}

function legend() {
  return h(
    "p",
    { class: "legend" },
    LEGEND.map(([state, sign, text]) =>
      h("span", null, h("i", { class: `cell cell-${state}`, "aria-hidden": "true" }, sign), text),
    ),
  );
}

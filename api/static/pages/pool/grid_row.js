// One row of the grid: an adapter version, its queue, and a cell per worker.

import { h, keyed, setAttr, setText } from "../../lib/dom.js";
import { count, duration, plural } from "../../lib/format.js";
import { shortVersion, shortWorker } from "./names.js";

const SIGNS = { resident: "●", loading: "◐", host: "○", absent: "" };
const STATES = { resident: "resident", loading: "loading", host: "in host memory", absent: "not loaded" };

/** Build a row; `node.show(row, columns)` shows an adapter in it. */
export function gridRow() {
  const name = h("span", { class: "grid-adapter" });
  const tag = h("span", { class: "grid-tag muted" });
  const head = h("div", { class: "grid-name", role: "rowheader", tabindex: "-1" }, name, tag);
  const waiting = h("div", { class: "grid-num", role: "gridcell" });
  const oldest = h("div", { class: "grid-num", role: "gridcell" });
  const cells = h("div", { class: "grid-cells", role: "presentation" });
  const node = h("div", { class: "grid-row", role: "row" }, head, waiting, oldest, cells);

  node.show = (row, columns) => {
    setText(name, row.name);
    setText(tag, tagOf(row));
    setAttr(head, "aria-label", describe(row));
    setText(waiting, row.waiting ? count(row.waiting) : "");
    setText(oldest, row.oldest_waited_s === null ? "" : duration(row.oldest_waited_s));
    waiting.classList.toggle("has-jobs", row.waiting > 0);
    keyed(cells, columns, {
      keyOf: ({ id }) => id,
      create: () => h("div", { role: "gridcell", tabindex: "-1" }),
      update: (cell, column) => showCell(cell, row, column),
    });
  };
  return node;
}

function showCell(cell, row, { id, gone }) {
  const { state, running } = (gone ? null : row.cells.get(id)) ?? { state: "absent", running: 0 };
  const look = gone ?? (running > 0 ? "running" : state);
  const shown = `${look} ${running} ${row.name}`;
  if (cell.shown === shown) return;
  cell.shown = shown;
  cell.className = `cell cell-${look}`;
  cell.textContent = running > 0 ? count(running) : SIGNS[state];
  const what = gone ? `the worker ${gone === "lost" ? "was lost" : "left"}` : STATES[state];
  cell.setAttribute(
    "aria-label",
    `${row.name} on ${shortWorker(id)}: ${what}${running > 0 ? `, ${running} running` : ""}`,
  );
}

function tagOf({ is_base: isBase, is_current: isCurrent, hasVersions, version }) {
  if (isBase) return "base";
  if (!isCurrent) return `${shortVersion(version)} old`;
  return hasVersions ? shortVersion(version) : "";
}

function describe(row) {
  const age = row.oldest_waited_s === null ? "" : `, the oldest for ${duration(row.oldest_waited_s)}`;
  const tag = tagOf(row);
  return `${row.name}${tag ? ` (${tag})` : ""}: ${count(row.running)} running, ${count(row.waiting)} waiting${age}, ${plural(row.requests, "request")}, ${plural(row.tokens, "token")} so far`;
}

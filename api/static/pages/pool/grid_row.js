// One row of the grid: an adapter version, its queue, and a cell per worker.

import { h, keyed, setAttr, setText } from "../../lib/dom.js";
import { count, duration, plural } from "../../lib/format.js";
import { hashOf } from "../../lib/location.js";
import { shortVersion, workerName } from "./names.js";

const SIGNS = { resident: "●", loading: "◐", host: "○", absent: "" };
const STATES = { resident: "resident", loading: "loading", host: "in host memory", absent: "not loaded" };

/** Build a row; `node.show(row, columns)` shows an adapter in it. `act(name, verb)` pauses or resumes it. */
export function gridRow(act) {
  const name = h("a", { class: "grid-adapter", tabindex: "-1" });
  const tag = h("span", { class: "grid-tag muted" });
  const head = h("div", { class: "grid-name", role: "rowheader" }, name, tag);
  const waiting = h("div", { class: "grid-num", role: "gridcell" });
  const oldest = h("div", { class: "grid-num", role: "gridcell" });
  const cells = h("div", { class: "grid-cells", role: "presentation" });
  const action = actionButton(act);
  const node = h("div", { class: "grid-row", role: "row" }, head, waiting, oldest, cells, h("div", { role: "gridcell", class: "grid-act" }, action.element));

  node.show = (row, columns) => {
    setText(name, row.name);
    setText(tag, tagOf(row));
    setAttr(name, "href", linkOf(row));
    setAttr(name, "aria-label", describe(row));
    node.classList.toggle("is-paused", row.is_paused);
    action.show(row);
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
    `${row.name} on ${workerName(id)}: ${what}${running > 0 ? `, ${running} running` : ""}`,
  );
}

/** The base model's jobs, or the adapter on the Adapters page. */
function linkOf({ name, is_base: isBase }) {
  return isBase ? hashOf("jobs", { query: { model: name } }) : hashOf("adapters", { path: name });
}

/** The button that pauses or resumes a row's adapter. The base model and old versions have none. */
function actionButton(act) {
  let verb = "pause";
  let row = null;
  const element = h("button", { type: "button", class: "grid-button", tabindex: "-1", onclick: () => act(row.name, verb) });
  return {
    element,
    show(shown) {
      row = shown;
      verb = row.is_paused ? "resume" : "pause";
      element.hidden = row.is_base || !row.is_current;
      element.dataset.verb = verb;
      setAttr(element, "aria-label", `${row.is_paused ? "Resume" : "Pause"} ${row.name}`);
    },
  };
}

function tagOf({ is_base: isBase, is_current: isCurrent, is_paused: isPaused, hasVersions, version }) {
  if (isBase) return "base";
  if (isPaused) return "paused";
  if (!isCurrent) return `${shortVersion(version)} old`;
  return hasVersions ? shortVersion(version) : "";
}

function describe(row) {
  const age = row.oldest_waited_s === null ? "" : `, the oldest for ${duration(row.oldest_waited_s)}`;
  const tag = tagOf(row);
  return `${row.name}${tag ? ` (${tag})` : ""}: ${count(row.running)} running, ${count(row.waiting)} waiting${age}, ${plural(row.requests, "request")}, ${plural(row.tokens, "token")} so far`;
}

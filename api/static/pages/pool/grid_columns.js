// The column heads of the grid. A worker that left stays for a while, so that its loss is seen.

import { h, keyed, setAttr } from "../../lib/dom.js";
import { workerHost, workerLink, workerName } from "./names.js";

const GONE_SHOWN_S = 10;

/** Build the head row. `update` returns the columns: `[{id, gone: null | "lost" | "left"}]`. */
export function columnHeads() {
  const element = h(
    "div",
    { class: "grid-row", role: "row" },
    ["Adapter", "Waiting", "Oldest"].map((text, i) =>
      h("div", { class: i ? "grid-num" : "grid-name", role: "columnheader" }, text),
    ),
  );
  const cells = h("div", { class: "grid-cells", role: "presentation" });
  element.append(cells, h("div", { role: "columnheader", class: "grid-act" }, h("span", { class: "visually-hidden" }, "Action")));
  const seen = new Map();

  function update(pool, lostWorkers) {
    const alive = new Set(pool.workers.map(({ id }) => id));
    for (const id of alive) seen.set(id, pool.time);
    for (const [id, time] of seen) if (pool.time - time > GONE_SHOWN_S) seen.delete(id);
    const columns = [...seen.keys()]
      .sort()
      .map((id) => ({ id, gone: alive.has(id) ? null : lostWorkers.has(id) ? "lost" : "left" }));
    keyed(cells, columns, { keyOf: ({ id }) => id, create: head, update: showGone });
    return columns;
  }

  return { element, update };
}

function head({ id }) {
  const link = h("a", { href: workerLink(id), tabindex: "-1" }, workerName(id));
  return h("div", { class: "grid-worker", role: "columnheader" }, link);
}

function showGone(node, { id, gone }) {
  setAttr(node, "data-gone", gone);
  setAttr(node.firstChild, "aria-label", `Worker ${workerName(id)}, ${workerHost(id)}${gone ? `, ${gone}` : ""}`);
}

// Puts the parts of the Pool page together.

import { h } from "../../lib/dom.js";
import { emptyBox, liveRegion } from "../../lib/notices.js";
import { poolActions } from "./actions.js";
import { connection } from "./connection.js";
import { grid } from "./grid.js";
import { history } from "./history.js";
import { incidents } from "./incidents.js";
import { nextFrame } from "../../lib/slices.js";
import { summary } from "./summary.js";
import { workersTable } from "./workers_table.js";

/**
 * Build the view. `showPool`, `showIncident` and `showLost` update it; `element` holds it. `revealWorker(name)`
 * points at a worker's row. `leaving` aborts when the page is left.
 */
export function poolView(leaving) {
  const live = liveRegion();
  const actions = poolActions(live);
  const list = incidents(live);
  const parts = {
    connection: connection(live),
    summary: summary(),
    history: history(leaving),
    incidents: list,
    grid: grid(list.lostWorkers, actions.adapter),
    workers: workersTable(actions.worker),
  };
  const nothing = h("div", { hidden: true });
  const content = h(
    "div",
    { class: "stack pool", hidden: true },
    parts.summary.element,
    nothing,
    actions.element,
    parts.workers.element,
    parts.history.element,
    h("div", { class: "pool-middle" }, parts.grid.element, parts.incidents.element),
  );
  const element = h("div", { class: "stack" }, parts.connection.element, content, live.element);

  /** Show a pool. Each part is drawn in a separate frame. */
  async function showPool(pool) {
    parts.connection.showLive(pool);
    parts.summary.update(pool);
    showNothing(pool);
    content.hidden = false;
    for (const part of [parts.workers, parts.history, parts.incidents, parts.grid]) {
      await nextFrame();
      await part.update(pool);
    }
  }

  function showNothing(pool) {
    const [title, advice] = missing(pool);
    nothing.hidden = title === null;
    if (title !== null && nothing.dataset.title !== title) {
      nothing.dataset.title = title;
      nothing.replaceChildren(emptyBox(title, h("p", null, advice)));
    }
    if (title === null) nothing.dataset.title = "";
  }

  return {
    element,
    showPool,
    showIncident: parts.incidents.add,
    showLost: parts.connection.showLost,
    revealWorker: parts.workers.reveal,
  };
}

/** The part that the pool lacks, and advice for the operator; nulls if it lacks none. */
function missing(pool) {
  if (pool.workers.length === 0) {
    return [
      "No worker is in the pool.",
      "Accepted jobs wait. Start one with: lorikeet worker MODEL --redis-url URL",
    ];
  }
  if (pool.adapters.every((adapter) => adapter.is_base)) {
    return [
      "No adapter is registered.",
      "The base model is served. Load adapters on the Adapters page, or with: lorikeet adapters load NAME PATH",
    ];
  }
  return [null, null];
}

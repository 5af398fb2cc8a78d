// The table of workers.

import { h, keyed, setAttr, setText } from "../../lib/dom.js";
import { bytes, count, duration, percent, plural } from "../../lib/format.js";
import { shortWorker, workerHost } from "./names.js";

const HEADINGS = [
  "Worker",
  "Device",
  "Running",
  "Tokens/s",
  "KV cache",
  "Adapter memory",
  "Host memory",
  "State",
];

/** Build the table. */
export function workersTable() {
  const body = h("tbody");
  const element = h(
    "section",
    { class: "panel", "aria-labelledby": "workers-title" },
    h("div", { class: "panel-head" }, h("h2", { id: "workers-title" }, "Workers")),
    h(
      "div",
      { class: "table-scroll", tabindex: "0", role: "region", "aria-labelledby": "workers-title" },
      h(
        "table",
        { class: "table workers-table" },
        h(
          "thead",
          null,
          h(
            "tr",
            null,
            HEADINGS.map((text) => h("th", { scope: "col" }, text)),
          ),
        ),
        body,
      ),
    ),
  );

  function update(pool) {
    element.hidden = pool.workers.length === 0;
    const workers = pool.workers.map((worker) => ({ ...worker, time: pool.time }));
    keyed(body, workers, { keyOf: ({ id }) => id, create: row, update: (node, worker) => node.show(worker) });
  }

  return { element, update };
}

function row({ id, device, dtype, version }) {
  const running = meter("of the slots");
  const kv = meter("of the KV cache");
  const adapters = meter("of the adapter memory");
  const host = meter("of the host memory for adapters");
  const rate = h("td", { class: "num" });
  const state = h("span", { class: "badge" });
  const node = h(
    "tr",
    null,
    h(
      "th",
      { scope: "row", class: "worker-name", title: id },
      h("code", null, shortWorker(id)),
      h("span", { class: "muted" }, workerHost(id)),
    ),
    h("td", null, device, " ", h("span", { class: "muted" }, `${dtype}, ${version}`)),
    [running, h("td", null), kv, adapters, host].map((cell, i) =>
      i === 1 ? rate : h("td", null, cell.element),
    ),
    h("td", null, state),
  );
  const speed = tokenSpeed();
  node.show = (worker) => {
    const { running: jobs, max_num_seqs: slots } = worker;
    running.show(slots ? jobs / slots : 0, `${count(jobs)} of ${count(slots)}`);
    kv.show(worker.kv_used, percent(worker.kv_used));
    showMemory(adapters, worker.adapter_bytes, worker.adapter_bytes_max);
    showMemory(host, worker.host_adapter_bytes, worker.host_adapter_bytes_max);
    setText(rate, speed(worker));
    const [tone, text] = stateOf(worker);
    setAttr(state, "class", `badge badge-${tone}`);
    setText(state, text);
  };
  return node;
}

/** Tokens per second between two events, since workers report totals. */
function tokenSpeed() {
  let last = null;
  let shown = "–";
  return ({ tokens_total: tokens, time }) => {
    if (last && time > last.time) shown = count(Math.max(0, tokens - last.tokens) / (time - last.time));
    if (!last || time > last.time) last = { tokens, time };
    return shown;
  };
}

function stateOf({ is_stalled: isStalled, lease_left_s: left, waiting }) {
  if (isStalled) return ["bad", "stalled"];
  if (left <= 0) return ["warn", `silent for ${duration(-left)}`];
  return ["good", waiting ? `alive, ${plural(waiting, "job")} queued inside` : "alive"];
}

function showMemory(memory, used, limit) {
  memory.show(
    limit ? used / limit : 0,
    limit ? `${bytes(used)} of ${bytes(limit)}` : used ? bytes(used) : "none",
  );
}

function meter(what) {
  const bar = h("span", { class: "meter-bar" });
  const text = h("span", { class: "meter-text" });
  const element = h(
    "span",
    { class: "meter", title: what },
    h("span", { class: "meter-track", "aria-hidden": "true" }, bar),
    text,
  );
  return {
    element,
    show(part, label) {
      bar.style.setProperty("width", `${Math.min(100, part * 100).toFixed(1)}%`);
      bar.classList.toggle("is-full", part > 0.9);
      setText(text, label);
    },
  };
}

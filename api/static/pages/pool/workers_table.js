// The table of workers.

import { h, keyed, setAttr, setText } from "../../lib/dom.js";
import { bytes, count, duration, percent, plural } from "../../lib/format.js";
import { workerHost } from "./names.js";

const HEADINGS = [
  "Worker",
  "Device",
  "Running",
  "Tokens/s",
  "KV cache",
  "Adapter memory",
  "Host memory",
  "State",
  "",
];

/** Build the table. `act(worker, verb)` pauses, resumes or drains a worker. `reveal(name)` points at a row. */
export function workersTable(act) {
  const body = h("tbody");
  let wanted = null; // name of a worker to point at once it is shown
  const element = h(
    "section",
    { class: "panel", "aria-labelledby": "workers-title" },
    h("div", { class: "panel-head" }, h("h2", { id: "workers-title" }, "Workers")),
    h(
      "div",
      { class: "table-scroll workers-scroll", tabindex: "0", role: "region", "aria-label": "Table of workers" },
      h(
        "table",
        { class: "table workers-table" },
        h(
          "thead",
          null,
          h(
            "tr",
            null,
            HEADINGS.map((text) => h("th", { scope: "col" }, text || h("span", { class: "visually-hidden" }, "Actions"))),
          ),
        ),
        body,
      ),
    ),
  );

  function update(pool) {
    element.hidden = pool.workers.length === 0;
    const workers = pool.workers.map((worker) => ({ ...worker, time: pool.time }));
    keyed(body, workers, { keyOf: ({ id }) => id, create: (worker) => row(worker, act), update: (node, worker) => node.show(worker) });
    if (wanted !== null) reveal(wanted);
  }

  /** Point at the worker with this name, now or once it is shown. */
  function reveal(name) {
    wanted = name;
    for (const node of body.children) {
      const isWanted = node.dataset.worker === name;
      setAttr(node, "aria-current", isWanted ? "true" : null);
      if (!isWanted) continue;
      wanted = null;
      node.scrollIntoView({ block: "nearest" });
      node.querySelector("button:not([hidden])")?.focus();
    }
  }

  return { element, update, reveal };
}

function row({ id, name, device, dtype, version }, act) {
  const running = meter("of the slots");
  const kv = meter("of the KV cache");
  const adapters = meter("of the adapter memory");
  const host = meter("of the host memory for adapters");
  const rate = h("td", { class: "num" });
  const state = h("span", { class: "badge" });
  let latest = null;
  const button = (verb, label, tone = "") =>
    h("button", { type: "button", class: `button button-small ${tone}`, "aria-label": `${label} worker ${name}`, onclick: () => act(latest, verb) }, label);
  const buttons = { pause: button("pause", "Pause"), resume: button("resume", "Resume"), drain: button("drain", "Drain", "button-danger") };
  const node = h(
    "tr",
    { dataset: { worker: name } },
    h(
      "th",
      { scope: "row", class: "worker-name", title: id },
      h("code", null, name),
      h("span", { class: "muted" }, workerHost(id)),
    ),
    h("td", null, device, " ", h("span", { class: "muted" }, `${dtype}, ${version}`)),
    [running, h("td", null), kv, adapters, host].map((cell, i) =>
      i === 1 ? rate : h("td", null, cell.element),
    ),
    h("td", null, state),
    h("td", null, h("div", { class: "row worker-actions" }, Object.values(buttons))),
  );
  const speed = tokenSpeed();
  node.show = (worker) => {
    latest = worker;
    const { running: jobs, slots_used: used, max_num_seqs: slots } = worker;
    running.show(slots ? used / slots : 0, `${plural(jobs, "job")}, ${count(used)} of ${plural(slots, "slot")}`);
    buttons.pause.hidden = worker.state !== "serving";
    buttons.resume.hidden = worker.state === "serving";
    buttons.drain.hidden = worker.state === "draining";
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

function stateOf({ is_stalled: isStalled, lease_left_s: left, waiting, state }) {
  if (isStalled) return ["bad", "stalled"];
  if (left <= 0) return ["warn", `silent for ${duration(-left)}`];
  if (state !== "serving") return ["warn", state];
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

// The figures at the top of the Pool page.

import { h, setText } from "../../lib/dom.js";
import { count, duration, plural } from "../../lib/format.js";

/** Build the strip of figures. */
export function summary() {
  const tiles = Object.entries({
    Workers: workers,
    Adapters: adapters,
    Running: running,
    Waiting: waiting,
    "Tokens/s": tokens,
    "Time to first token": firstToken,
    Ended: ended,
  }).map(([name, read]) => tile(name, read));
  const element = h(
    "dl",
    { class: "panel tiles" },
    tiles.map((each) => each.element),
  );
  return { element, update: (pool) => tiles.forEach((each) => each.update(pool)) };
}

function tile(name, read) {
  const value = h("b");
  const detail = h("span", { class: "muted" });
  const element = h("div", { class: "tile" }, h("dt", null, name), h("dd", null, value, " ", detail));
  return {
    element,
    update(pool) {
      const [main, more] = read(pool);
      setText(value, main);
      setText(detail, more);
    },
  };
}

function workers({ workers }) {
  const stalled = workers.filter((worker) => worker.is_stalled).length;
  return [count(workers.length), stalled ? `${count(stalled)} stalled` : ""];
}

function adapters({ adapters, workers }) {
  const resident = new Set(
    workers.flatMap((worker) =>
      worker.adapters.filter(({ state }) => state === "resident").map(({ version }) => version),
    ),
  );
  const own = adapters.filter((adapter) => !adapter.is_base);
  return [count(own.length), `${count(own.filter(({ version }) => resident.has(version)).length)} resident`];
}

/** Each answer that a job asks for with `n` uses a slot. */
function running({ queue, slots }) {
  return [count(queue.running), `${count(slots.used)} of ${plural(slots.total, "slot")}`];
}

function waiting({ queue, adapters }) {
  const ages = adapters.map((adapter) => adapter.oldest_waited_s ?? -1);
  const oldest = Math.max(-1, ...ages);
  return [count(queue.waiting), oldest < 0 ? "" : `oldest ${duration(oldest)}`];
}

function tokens({ rates }) {
  return [count(rates.tokens_per_s), `${rates.requests_per_s.toFixed(1)} req/s`];
}

function firstToken({ rates }) {
  if (rates.ttft_p50_s === null) return ["–", ""];
  return [duration(rates.ttft_p50_s), `p95 ${duration(rates.ttft_p95_s ?? rates.ttft_p50_s)}`];
}

function ended({ queue }) {
  const bad = queue.failed + queue.expired + queue.dead;
  return [count(queue.done), bad ? `done, ${count(bad)} failed` : "done"];
}

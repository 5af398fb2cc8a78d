// One adapter in the table: its row, and the row below with its versions and actions.

import { serverNow } from "../../lib/api.js";
import { fill, h, keyed, setAttr, setText } from "../../lib/dom.js";
import { bytes, clock, count, duration, plural } from "../../lib/format.js";
import { workerLink, workerName } from "../pool/names.js";
import { Agreement } from "./agreement.js";
import { shareText } from "./candidate.js";

const FACTS = ["version", "kind", "rank", "size", "requests", "tokens", "used", "workers", "waiting"];
const LABELS = {
  version: "Version", kind: "Kind", rank: "Rank", size: "Size", requests: "Requests", tokens: "Tokens",
  used: "Last used", workers: "Workers", waiting: "Waiting",
};
const WIDE = new Set(["version", "used"]); // cells that take the whole width of a narrow screen
const NUMBERS = new Set(["rank", "size", "requests", "tokens", "waiting"]);

/** Heads of the table's columns. */
export function headRow() {
  const heads = FACTS.map((name) => h("th", { scope: "col", class: NUMBERS.has(name) ? "num" : null }, LABELS[name]));
  return h("tr", null, h("th", { scope: "col" }, "Name"), heads);
}

/** Rows of one adapter. `actions` has `opened` and a function for each button. Each gets this object. */
export class AdapterRow {
  constructor(adapter, actions) {
    this.adapter = adapter;
    this.actions = actions;
    const id = `adapter-${adapter.id}`;
    this.toggle = h("button", { type: "button", class: "row-toggle", "aria-expanded": "false", "aria-controls": id, onclick: () => this.open(this.detail.hidden) }, adapter.id);
    this.state = h("span", { class: "badge badge-bad", hidden: true });
    this.trial = h("span", { class: "badge badge-info", hidden: true });
    this.pinned = h("span", { class: "badge", hidden: true });
    this.paused = h("span", { class: "badge badge-warn", hidden: true }, "paused");
    this.cells = Object.fromEntries(FACTS.map((name) => [name, h("td", { class: NUMBERS.has(name) ? "num" : WIDE.has(name) ? "wide" : null, "data-label": LABELS[name] })]));
    this.versions = h("tbody");
    this.message = h("div", { class: "row-message" });
    this.agreement = new Agreement();
    const act = (name, label, tone = "") => h("button", { type: "button", class: `button button-small ${tone}`, onclick: () => actions[name](this) }, label);
    this.rollBack = act("rollBack", "Roll back");
    this.tryOut = act("tryOut", "Try out …");
    this.pause = act("pause", "Pause");
    this.detail = h(
      "tr", { id, class: "detail-row", hidden: true },
      h(
        "td", { colspan: FACTS.length + 1 },
        h("div", { class: "row" }, this.rollBack, act("replace", "Replace …"), this.tryOut, act("pin", "Pin …"), this.pause, act("compare", "Compare versions"), act("unload", "Unload …", "button-danger")),
        this.message, this.agreement.element,
        h(
          "div", { class: "table-scroll", tabindex: "0", role: "region", "aria-label": `Versions of ${adapter.id}` },
          h("table", { class: "table versions" }, h("thead", null, versionHead()), this.versions),
        ),
      ),
    );
    this.element = h("tbody", { class: "adapter" }, h("tr", { class: "main-row" }, h("th", { scope: "row" }, this.toggle, this.state, this.trial, this.pinned, this.paused), Object.values(this.cells)), this.detail);
    this.update(adapter);
  }

  open(isOpen) {
    this.detail.hidden = !isOpen;
    setAttr(this.toggle, "aria-expanded", String(isOpen));
    if (isOpen) this.actions.opened(this);
  }

  /** The shadow whose agreement the row shows; undefined for a closed row or without a shadow. */
  get shownShadow() {
    const { candidate } = this.adapter;
    return !this.detail.hidden && candidate?.mode === "shadow" ? candidate.version : undefined;
  }

  /** Show how a candidate's answers compare, unless it isn't the row's shadow any more. */
  showAgreement(details) {
    if (details.version !== this.shownShadow) return;
    this.compared = details.version;
    this.agreement.show(details);
  }

  update(adapter) {
    this.adapter = adapter;
    const { cells } = this;
    setText(cells.version, adapter.version.split("@").at(-1));
    setText(cells.kind, kindsOf(adapter));
    setText(cells.rank, count(adapter.rank));
    setText(cells.size, bytes(adapter.bytes));
    setText(cells.requests, requestsOf(adapter));
    setText(cells.tokens, count(adapter.tokens));
    setText(cells.used, ago(adapter.last_used_ms));
    showHolders(cells.workers, adapter.workers);
    setText(cells.waiting, count(adapter.waiting));
    this.state.hidden = adapter.state === "ready";
    setText(this.state, adapter.state);
    this.showTrial();
    this.paused.hidden = !adapter.is_paused;
    setText(this.pause, adapter.is_paused ? "Resume" : "Pause");
    this.rollBack.disabled = adapter.previous.length === 0;
    setText(this.rollBack, adapter.previous.length ? `Roll back to ${adapter.previous[0].version.split("@").at(-1)}` : "Roll back");
    keyed(this.versions, versionsOf(adapter), { keyOf: ({ version }) => version, create: (each) => this.versionRow(each), update: showVersion });
  }

  /** Show the candidate and the pin. */
  showTrial() {
    const { candidate, min_replicas: replicas, workers } = this.adapter;
    this.trial.hidden = candidate === null;
    setText(this.trial, candidate ? shareText(candidate) : "");
    setAttr(this.trial, "class", `badge ${candidate?.state === "ready" ? "badge-info" : "badge-bad"}`);
    this.pinned.hidden = replicas === 0;
    setText(this.pinned, `pinned: on ${workers.filter(({ tier }) => tier === "device").length} of ${replicas}`);
    setText(this.tryOut, candidate ? "Change the share …" : "Try out …");
    this.tryOut.disabled = candidate !== null && candidate.state !== "ready";
    if (this.compared !== this.shownShadow) this.agreement.hide();
  }

  versionRow({ version }) {
    const act = (label, onclick) => h("button", { type: "button", class: "button button-small", "aria-label": `${label}: ${version}`, dataset: { act: label }, onclick }, label);
    const buttons = [
      act("Make current", () => this.actions.makeCurrent(this, version)),
      act("Promote", () => this.actions.promote(this)),
      act("Drop", () => this.actions.drop(this)),
    ];
    return h("tr", null, h("td", { class: "mono" }), Array.from({ length: 6 }, () => h("td")), h("td", { class: "version-source" }), h("td", null, h("div", { class: "row" }, buttons)));
  }
}

/** The current version, the candidate and the other previous versions, each with its place and actions. */
export function versionsOf(adapter) {
  const isReady = ({ state }) => state === "ready";
  const shown = (version, place, acts) => (isReady(version) ? { ...version, place, acts } : { ...version, place: version.state, acts: [] });
  const { candidate } = adapter;
  const previous = adapter.previous.map((version, index) => shown(version, `previous ${index + 1}`, ["Make current"]));
  return [
    shown(adapter, "current", []),
    candidate && { ...candidate, place: shareText(candidate), acts: isReady(candidate) ? ["Promote", "Drop"] : ["Drop"] },
    ...previous.filter(({ version }) => version !== candidate?.version),
  ].filter(Boolean);
}

function versionHead() {
  const hidden = (text) => h("span", { class: "visually-hidden" }, text);
  const heads = ["Version", hidden("State"), "Created", "Requests", "Tokens", "Last used", "Waiting", "Source", hidden("Action")];
  return h("tr", null, heads.map((head) => h("th", { scope: "col" }, head)));
}

/** How long ago a Unix time in milliseconds is. */
export function ago(ms) {
  return ms === null ? "never" : `${duration(Math.max(0, serverNow() - ms) / 1000)} ago`;
}

function kindsOf({ kinds }) {
  return kinds.length ? kinds.join(", ") : "LoRA";
}

/** The worker that holds an adapter, or how many do. */
function showHolders(cell, workers) {
  const loading = workers.filter(({ tier }) => tier === "loading").length;
  const isOne = workers.length === 1;
  const text = workers.length === 0 ? "none" : isOne ? workerName(workers[0].worker) : plural(workers.length, "worker");
  const shown = `${text}${loading ? `, ${loading} loading` : ""}`;
  if (cell.textContent !== shown) fill(cell, isOne ? h("a", { href: workerLink(workers[0].worker) }, text) : text, shown.slice(text.length));
  setAttr(cell, "title", workers.map(({ worker, tier }) => `${workerName(worker)}: ${tier}`).join("\n") || null);
}

/** Show a path or URL, which wraps behind a slash. */
function showSource(cell, source) {
  if (cell.textContent === source) return;
  fill(cell, source.split(/(?<=\/)/).map((part) => [part, h("wbr")]));
}

/** "1,204", or "1,204 (3 failed)". */
function requestsOf({ requests, failed }) {
  return failed ? `${count(requests)} (${count(failed)} failed)` : count(requests);
}

function showVersion(row, version) {
  const date = new Date(version.created * 1000).toLocaleDateString("en-CA");
  const texts = [
    version.version, version.place, `${date} ${clock(version.created)}`,
    requestsOf(version), count(version.tokens), ago(version.last_used_ms), count(version.waiting),
  ];
  texts.forEach((text, index) => setText(row.children[index], text));
  showSource(row.querySelector(".version-source"), version.source);
  for (const button of row.querySelectorAll("button")) {
    button.hidden = !version.acts.includes(button.dataset.act);
  }
}

// The Adapters page: the loaded adapters, their usage, and actions for them.

import { getJson } from "../lib/api.js";
import { fill, h, keyed, setText } from "../lib/dom.js";
import { count, plural } from "../lib/format.js";
import { hashOf, hashPath, hashQuery, replaceHash } from "../lib/location.js";
import { emptyBox, liveRegion, refusalBox, showBox } from "../lib/notices.js";
import { poll } from "../lib/polling.js";
import { RowActions, pathOf } from "./adapters/actions.js";
import { loadDialog } from "./adapters/load.js";
import { AdapterRow, headRow } from "./adapters/row.js";
import { droppedFiles } from "./adapters/upload.js";

const REFRESH_MS = 3000;
const PER_PAGE = 50;
const HAS_ENDED = new Set([404, 409]); // statuses of the server if a trial has ended
const HEAD = { id: "" }; // item for the table's head, which is kept like a row

/** Show the page in `root`. Returns the function that leaves the page. */
export function mount(root) {
  const page = new AdaptersPage(root);
  page.start();
  return () => page.stop();
}

class AdaptersPage {
  constructor(root) {
    this.root = root;
    this.leaving = new AbortController();
    this.isRefused = false;
    this.adapters = [];
    this.page = 0;
    this.rows = new Map();
    this.actions = new RowActions(this);
    this.reading = new Set(); // rows whose agreement is being read
    this.turn = 0; // number of the latest request; `latest` is its promise
    this.search = h("input", { id: "adapter-search", type: "search", placeholder: "Filter by name", "aria-label": "Filter by name", oninput: () => this.searched() });
    this.number = h("span", { class: "muted" });
    this.table = h("table", { class: "table adapters cards" });
    this.scroll = h("div", { class: "table-scroll", tabindex: "0", role: "region", "aria-label": "Adapters" }, this.table);
    this.problem = h("div");
    this.empty = h("div");
    this.draining = h("div");
    this.live = liveRegion();
    this.previous = h("button", { type: "button", class: "button button-small", onclick: () => this.turnTo(this.page - 1) }, "Previous");
    this.next = h("button", { type: "button", class: "button button-small", onclick: () => this.turnTo(this.page + 1) }, "Next");
    this.pageText = h("span", { class: "muted" });
    this.pager = h("nav", { class: "pager row", "aria-label": "Pages of adapters" }, this.previous, this.pageText, this.next);
    const load = h("button", { type: "button", class: "button button-primary", onclick: () => this.load({}) }, "Load an adapter …");
    const head = h("div", { class: "panel-head" }, h("h2", null, "Adapters"), this.number, h("span", { class: "spacer" }), this.search, load);
    const panel = h("section", { class: "panel adapters-panel", ondragover: (event) => event.preventDefault(), ondrop: (event) => this.drop(event) }, head, this.empty, this.scroll, this.pager);
    fill(root, this.problem, panel, this.draining, this.live.element);
  }

  start() {
    addEventListener("hashchange", () => this.readHash(), { signal: this.leaving.signal });
    this.readHash();
    poll(() => this.isRefused || this.refresh(), { everyMs: REFRESH_MS, signal: this.leaving.signal });
  }

  stop() {
    this.leaving.abort();
  }

  /** Show what the hash says: `#/adapters/NAME` opens an adapter, `#/adapters?name=WORD` filters them. */
  readHash() {
    this.wanted = hashPath() || null;
    this.search.value = this.wanted ?? hashQuery().get("name") ?? "";
    if (this.adapters.length) this.turnTo(0);
  }

  searched() {
    this.wanted = null;
    replaceHash(hashOf("adapters", { query: { name: this.search.value.trim() } }));
    this.turnTo(0);
  }

  /** Read everything again. Resolves once the page shows the result of this read or of a later one. */
  refresh() {
    return (this.latest = this.read());
  }

  async read() {
    const { signal } = this.leaving;
    const turn = ++this.turn;
    try {
      const { data, draining } = await getJson("v1/adapters", { signal });
      if (turn !== this.turn) return await this.latest; // a later request has newer data
      this.adapters = data;
      this.isRefused = false;
      showBox(this.problem, null);
      this.show();
      this.showDraining(draining);
      await Promise.all([...this.rows.values()].map((row) => this.readAgreement(row)));
    } catch (error) {
      if (signal.aborted) return;
      this.isRefused = error.isRefusal ?? false;
      const box = refusalBox(error, { what: "the adapters", page: "Adapters", retry: () => this.refresh() });
      if (error.status === 403) fill(this.root, box);
      else showBox(this.problem, box);
    }
  }

  /** Read how the answers of an open row's shadow compare. */
  async readAgreement(row) {
    if (this.reading.has(row) || !row.element.isConnected || !row.shownShadow) return;
    this.reading.add(row);
    try {
      row.showAgreement(await getJson(`${pathOf(row)}/candidate`, { signal: this.leaving.signal }));
    } catch (error) {
      if (!HAS_ENDED.has(error.status)) throw error;
    } finally {
      this.reading.delete(row);
    }
  }

  turnTo(page) {
    this.page = page;
    this.show();
  }

  show() {
    const word = this.search.value.trim().toLowerCase();
    const found = this.adapters.filter(({ id }) => id.toLowerCase().includes(word));
    const numPages = Math.max(1, Math.ceil(found.length / PER_PAGE));
    this.page = Math.min(this.page, numPages - 1);
    const shown = found.slice(this.page * PER_PAGE, (this.page + 1) * PER_PAGE);
    keyed(this.table, [HEAD, ...shown], {
      keyOf: ({ id }) => id,
      create: (item) => (item === HEAD ? h("thead", null, headRow()) : this.build(item)),
      update: (_, item) => this.rows.get(item.id)?.update(item),
    });
    this.openWanted();
    this.scroll.hidden = shown.length === 0;
    setText(this.number, word ? `${count(found.length)} of ${count(this.adapters.length)}` : count(this.adapters.length));
    this.pager.hidden = numPages === 1;
    this.previous.disabled = this.page === 0;
    this.next.disabled = this.page === numPages - 1;
    setText(this.pageText, `Page ${this.page + 1} of ${numPages}`);
    const text = word ? "No adapter has this in its name." : "Load one from a folder or the hub, or drop its folder here.";
    fill(this.empty, shown.length === 0 && emptyBox("No adapters", h("p", null, text)));
  }

  /** Open the adapter that the hash names, once. */
  openWanted() {
    const row = this.rows.get(this.wanted);
    if (!row?.element.isConnected) return;
    this.wanted = null;
    row.open(true);
  }

  build(adapter) {
    const row = new AdapterRow(adapter, this.actions);
    this.rows.set(adapter.id, row);
    return row.element;
  }

  showDraining(draining) {
    const items = draining.map(({ version, state, waiting }) => h("li", null, h("code", null, version), ` ${state}, ${plural(waiting, "request")} waiting`));
    fill(this.draining, items.length > 0 && h("section", { class: "panel" }, h("div", { class: "panel-head" }, h("h2", null, "Answering their last requests")), h("ul", { class: "panel-body draining" }, items)));
  }

  async drop(event) {
    event.preventDefault();
    this.load({ files: await droppedFiles(event.dataTransfer) });
  }

  async load(options) {
    const name = await loadDialog(options);
    if (name === null) return;
    await this.refresh();
    this.say(`${name} is loaded`);
    this.rows.get(name)?.open(true);
  }

  say(text) {
    this.live.say(text);
  }

  focusSearch() {
    this.search.focus();
  }
}

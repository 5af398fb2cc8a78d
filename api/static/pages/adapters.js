// The Adapters page: what is loaded and how it is used; check, load, replace, roll back, unload.

import { getJson, sendJson } from "../lib/api.js";
import { confirmAction } from "../lib/confirm.js";
import { fill, h, keyed, setText } from "../lib/dom.js";
import { count, plural } from "../lib/format.js";
import { emptyBox, errorBox, liveRegion, refusalBox, showBox } from "../lib/notices.js";
import { poll } from "../lib/polling.js";
import { loadDialog } from "./adapters/load.js";
import { AdapterRow, headRow } from "./adapters/row.js";
import { droppedFiles } from "./adapters/upload.js";
import { chooseModels } from "./compare/store.js";

const REFRESH_MS = 3000;
const PER_PAGE = 50;
const MAX_COMPARED = 4;
const HEAD = { id: "" }; // the table's head counts as its first row

/** Show the page in `root`; returns what leaves it. */
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
    this.search = h("input", { id: "adapter-search", type: "search", placeholder: "Filter by name", "aria-label": "Filter by name", oninput: () => this.turnTo(0) });
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
    poll(() => this.isRefused || this.refresh(), { everyMs: REFRESH_MS, signal: this.leaving.signal });
  }

  stop() {
    this.leaving.abort();
  }

  async refresh() {
    const { signal } = this.leaving;
    try {
      const { data, draining } = await getJson("v1/adapters", { signal });
      this.adapters = data;
      this.isRefused = false;
      showBox(this.problem, null);
      this.show();
      this.showDraining(draining);
    } catch (error) {
      if (signal.aborted) return;
      this.isRefused = error.isRefusal ?? false;
      const box = refusalBox(error, { what: "the adapters", page: "Adapters", retry: () => this.refresh() });
      if (error.status === 403) fill(this.root, box);
      else showBox(this.problem, box);
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
    this.scroll.hidden = shown.length === 0;
    setText(this.number, word ? `${count(found.length)} of ${count(this.adapters.length)}` : count(this.adapters.length));
    this.pager.hidden = numPages === 1;
    this.previous.disabled = this.page === 0;
    this.next.disabled = this.page === numPages - 1;
    setText(this.pageText, `Page ${this.page + 1} of ${numPages}`);
    const text = word ? "No adapter has this in its name." : "Load one from a folder or the hub, or drop its folder here.";
    fill(this.empty, shown.length === 0 && emptyBox("No adapters", h("p", null, text)));
  }

  build(adapter) {
    const actions = {
      rollBack: (row) => this.rollBack(row),
      makeCurrent: (row, version) => this.makeCurrent(row, version),
      replace: (row) => this.load({ name: row.adapter.id }),
      compare: (row) => this.compare(row),
      unload: (row) => this.unload(row),
    };
    const row = new AdapterRow(adapter, actions);
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
    this.live.say(`${name} is loaded`);
    this.rows.get(name)?.open(true);
  }

  async rollBack(row, query = "") {
    const { id } = row.adapter;
    await this.act(row, async () => {
      const { version } = await sendJson("POST", `v1/adapters/${pathOf(id)}/rollback${query}`);
      return `New requests for ${id} use ${version}.`;
    });
  }

  async makeCurrent(row, version) {
    const { id } = row.adapter;
    const text = `New requests for ${id} use this version at once. Waiting and running ones keep theirs.`;
    const labels = { action: "Make current", keep: "Cancel", tone: "button-primary" };
    if (!(await confirmAction({ title: `Make ${version} current?`, text, ...labels }))) return;
    row.toggle.focus(); // the version's button disappears
    await this.rollBack(row, `?${new URLSearchParams({ version })}`);
  }

  async unload(row) {
    const { id } = row.adapter;
    const text = `New requests for ${id} are refused at once. Waiting and running ones are still answered.`;
    if (!(await confirmAction({ title: `Unload ${id}?`, text, action: "Unload" }))) return;
    await this.act(row, async () => {
      await sendJson("DELETE", `v1/adapters/${pathOf(id)}`);
      this.search.focus();
      return `${id} is unloaded.`;
    });
  }

  compare({ adapter }) {
    chooseModels([adapter, ...adapter.previous].slice(0, MAX_COMPARED).map(({ version }) => version));
    location.hash = "#/compare";
  }

  /** Run an action of a row, and say how it ended below its buttons. */
  async act(row, action) {
    try {
      const text = await action();
      fill(row.message, h("p", { class: "done-text" }, text));
      this.live.say(text);
    } catch (error) {
      fill(row.message, errorBox(error));
    }
    await this.refresh();
  }
}

/** An adapter's name in a path. Its slashes stay slashes. */
function pathOf(name) {
  return name.split("/").map(encodeURIComponent).join("/");
}

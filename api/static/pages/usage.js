// The Usage page: requests and tokens by day, tenant and adapter, as a table and as CSV.

import { getJson, request } from "../lib/api.js";
import { fill, h, setText } from "../lib/dom.js";
import { count } from "../lib/format.js";
import { hashOf, hashQuery, replaceHash } from "../lib/location.js";
import { emptyBox, errorBox, showBox } from "../lib/notices.js";
import { retryLater } from "../lib/polling.js";
import { isAdmin } from "../lib/rights.js";
import { tokenBars } from "./usage/bars.js";

const GROUPS = { day: "Day", tenant: "Tenant", model: "Adapter" };
const COUNTS = { requests: "Requests", prompt_tokens: "Prompt tokens", cached_tokens: "Cached", completion_tokens: "Answer tokens" };
const PER_PAGE = 100;
const DAY_MS = 86_400_000;
const DAYS_AT_FIRST = 7;

/** Show the page in `root`. Returns the function that leaves it. */
export function mount(root) {
  const page = new UsagePage(root);
  page.start();
  return () => page.leaving.abort();
}

class UsagePage {
  constructor(root) {
    this.leaving = new AbortController();
    this.turn = 0; // number of the latest request, whose answer is shown
    const changed = () => this.changed();
    this.first = h("input", { id: "usage-start", type: "date", onchange: changed });
    this.last = h("input", { id: "usage-end", type: "date", onchange: changed });
    this.groups = Object.entries(GROUPS).map(([name, label]) => ({ name, label, box: h("input", { type: "checkbox", onchange: changed }) }));
    this.tenant = h("input", { id: "usage-tenant", type: "search", placeholder: "All tenants", autocomplete: "off", spellcheck: "false", onchange: changed });
    this.tenantField = h("label", { class: "filter", hidden: true }, "Tenant", this.tenant);
    this.problem = h("div");
    this.sums = h("p", { class: "panel-note", role: "status" });
    this.bars = tokenBars();
    this.table = h("div", { class: "table-scroll", tabindex: "0", role: "region", "aria-label": "Usage" });
    this.more = h("button", { type: "button", class: "button button-small", hidden: true, onclick: () => this.readMore() }, "More rows");
    const filters = h(
      "div", { class: "job-filters" },
      h("label", { class: "filter" }, "From", this.first), h("label", { class: "filter" }, "To", this.last), this.tenantField,
      h("fieldset", { class: "chips" }, h("legend", { class: "visually-hidden" }, "Group by"), this.groups.map(({ label, box }) => h("label", { class: "chip" }, box, label))),
    );
    this.download = h("button", { type: "button", class: "button", onclick: () => this.downloadCsv() }, "Download CSV");
    const head = h("div", { class: "panel-head" }, h("h2", null, "Usage"), h("span", { class: "muted" }, "by UTC day"), h("span", { class: "spacer" }), this.download);
    fill(root, this.problem, h("section", { class: "panel" }, head, filters, this.sums, this.bars.element, this.table, h("div", { class: "pager row" }, this.more)));
  }

  start() {
    addEventListener("hashchange", () => this.follow(), { signal: this.leaving.signal });
    this.follow();
  }

  /** Show what the hash says. */
  follow() {
    const query = hashQuery();
    this.first.value = query.get("start") ?? dayOf(Date.now() - (DAYS_AT_FIRST - 1) * DAY_MS);
    this.last.value = query.get("end") ?? dayOf(Date.now());
    this.tenant.value = query.get("tenant") ?? "";
    const groups = (query.get("group_by") ?? Object.keys(GROUPS).join()).split(",");
    for (const { name, box } of this.groups) box.checked = groups.includes(name);
    this.refresh();
  }

  changed() {
    if (!this.groups.some(({ box }) => box.checked)) this.groups[0].box.checked = true;
    const { start, end, tenant, group_by: groups } = this.query;
    replaceHash(hashOf("usage", { query: { start, end, tenant, group_by: groups } }));
    this.refresh();
  }

  get query() {
    const query = { start: this.first.value, end: this.last.value, group_by: this.groups.filter(({ box }) => box.checked).map(({ name }) => name).join() };
    if (this.tenant.value.trim()) query.tenant = this.tenant.value.trim();
    return Object.fromEntries(Object.entries(query).filter(([, value]) => value !== ""));
  }

  async refresh() {
    const turn = ++this.turn;
    await this.act(async (signal) => {
      this.tenantField.hidden = !(await isAdmin(signal));
      const { start, end, tenant } = this.query;
      const byDay = new URLSearchParams({ start, end, ...(tenant && { tenant }), group_by: "day" });
      const [page, days] = await Promise.all([this.page(null, signal), getJson(`v1/usage?${byDay}`, { signal })]);
      if (turn !== this.turn) return;
      this.rows = page.data;
      this.show(page);
      this.showSums(days.data);
      this.bars.show(days.data, { start, end });
    });
  }

  async readMore() {
    const turn = this.turn;
    await this.act(async (signal) => {
      const page = await this.page(this.lastId, signal);
      if (turn !== this.turn) return;
      this.rows.push(...page.data);
      this.show(page);
    });
  }

  page(after, signal) {
    const query = new URLSearchParams({ ...this.query, limit: PER_PAGE, ...(after && { after }) });
    return getJson(`v1/usage?${query}`, { signal });
  }

  async downloadCsv() {
    await this.act(async (signal) => {
      const reply = await request(`v1/usage?${new URLSearchParams({ ...this.query, format: "csv" })}`, { signal });
      const url = URL.createObjectURL(await reply.blob());
      h("a", { href: url, download: `usage-${this.first.value}-${this.last.value}.csv` }).click();
      URL.revokeObjectURL(url);
    });
  }

  async act(action) {
    const { signal } = this.leaving;
    try {
      await action(signal);
      showBox(this.problem, null);
    } catch (error) {
      if (signal.aborted) return;
      showBox(this.problem, errorBox(error, () => this.refresh()));
      retryLater(() => this.refresh(), error, signal);
    }
  }

  show({ last_id: lastId, has_more: hasMore }) {
    this.lastId = lastId;
    this.more.hidden = !hasMore;
    if (!this.rows.length) {
      fill(this.table, emptyBox("No request ended in these days", h("p", null, "Usage is counted when a request ends.")));
      return;
    }
    const groups = this.groups.filter(({ box }) => box.checked);
    const head = [...groups.map(({ label }) => h("th", { scope: "col" }, label)), ...Object.values(COUNTS).map((label) => h("th", { scope: "col", class: "num" }, label))];
    const rows = this.rows.map((row) => h("tr", null, groups.map(({ name }) => h("td", null, row[name])), Object.keys(COUNTS).map((name) => h("td", { class: "num" }, row[name].toLocaleString("en")))));
    fill(this.table, h("table", { class: "table usage" }, h("thead", null, h("tr", null, head)), h("tbody", null, rows)));
  }

  showSums(days) {
    const sum = (name) => days.reduce((total, row) => total + row[name], 0);
    setText(this.sums, `${count(sum("requests"))} requests, ${count(sum("prompt_tokens"))} prompt tokens (${count(sum("cached_tokens"))} cached), ${count(sum("completion_tokens"))} answer tokens`);
  }
}

/** The UTC day of a Unix time in ms, as YYYY-MM-DD. */
function dayOf(ms) {
  return new Date(ms).toISOString().slice(0, 10);
}

// The Jobs page: the tenant's jobs, newest first, and actions for them.

import { getJson, sendJson } from "../lib/api.js";
import { confirmAction } from "../lib/confirm.js";
import { fill, h, keyed, setText } from "../lib/dom.js";
import { emptyBox, errorBox, liveRegion, showBox } from "../lib/notices.js";
import { hashPath, replaceHash } from "../lib/location.js";
import { poll } from "../lib/polling.js";
import { isAdmin } from "../lib/rights.js";
import { JobDialog } from "./jobs/detail.js";
import { Filters } from "./jobs/filters.js";
import { JobRow, headRow } from "./jobs/list.js";
import { actOnMany } from "./jobs/many.js";

const REFRESH_MS = 2000;
const PER_PAGE = 25;

/** Show the page in `root`. Returns the function that leaves it. `#/jobs/ID` opens the job's dialog. */
export function mount(root) {
  const page = new JobsPage(root);
  page.start();
  return () => page.stop();
}

class JobsPage {
  constructor(root) {
    this.leaving = new AbortController();
    this.cursors = [null]; // `after` of each page up to this one
    this.rows = new Map();
    this.pool = null;
    this.maySeePool = true;
    this.isRefused = false;
    this.shownQuery = null;
    this.dialog = null;
    this.actions = { cancel: (job) => this.cancel(job), retry: (job) => this.retry(job), hash: (id) => this.filters.hash(id) };
    this.filters = new Filters(() => this.restart());
    this.search = h("input", { type: "search", id: "job-search", class: "job-search", placeholder: "Job id", "aria-label": "Job id", autocomplete: "off", spellcheck: "false" });
    const searchForm = h("form", { class: "row", role: "search" }, this.search, h("button", { type: "submit", class: "button" }, "Open"));
    searchForm.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.search.value.trim()) location.hash = this.filters.hash(this.search.value.trim());
    });
    const many = h(
      "div", { class: "row" },
      h("button", { type: "button", class: "button button-small", onclick: () => this.actOnMany("cancel") }, "Cancel all …"),
      h("button", { type: "button", class: "button button-small", onclick: () => this.actOnMany("retry") }, "Retry all …"),
    );
    this.body = h("tbody");
    this.scroll = h("div", { class: "table-scroll", tabindex: "0", role: "region", "aria-label": "Jobs" }, h("table", { class: "table jobs cards" }, h("thead", null, headRow()), this.body));
    this.empty = h("div");
    this.done = h("p", { class: "done-text panel-note", role: "status" });
    this.problem = h("div");
    this.live = liveRegion();
    this.newer = h("button", { type: "button", class: "button button-small", onclick: () => this.turn(-1) }, "Newer");
    this.older = h("button", { type: "button", class: "button button-small", onclick: () => this.turn(1) }, "Older");
    this.pageText = h("span", { class: "muted" });
    const pager = h("nav", { class: "pager row", "aria-label": "Pages of jobs" }, this.newer, this.pageText, this.older);
    fill(root, this.problem, h("section", { class: "panel" }, h("div", { class: "panel-head" }, h("h2", null, "Jobs"), h("span", { class: "spacer" }), searchForm, many), this.filters.element, this.done, this.empty, this.scroll, pager), this.live.element);
  }

  start() {
    const { signal } = this.leaving;
    addEventListener("hashchange", () => this.follow(), { signal });
    this.filters.read();
    this.openFromHash();
    poll(() => this.isRefused || this.refresh(), { everyMs: REFRESH_MS, signal });
    getJson("v1/models", { signal }).then(
      ({ data }) => this.filters.suggest(data.map(({ id }) => id)),
      () => {}, // the field works without suggestions
    );
  }

  /** Show what a new hash says: other filters, or a job. */
  follow() {
    const before = this.query.toString();
    this.filters.read();
    if (this.query.toString() !== before) this.restart();
    this.openFromHash();
  }

  stop() {
    this.leaving.abort();
  }

  get query() {
    const query = new URLSearchParams({ limit: PER_PAGE, ...this.filters.query });
    const after = this.cursors.at(-1);
    if (after !== null) query.set("after", after);
    return query;
  }

  restart() {
    this.cursors = [null];
    this.markPager();
    return this.refresh();
  }

  turn(step) {
    if (this.isWaiting) return;
    if (step < 0) this.cursors.pop();
    else this.cursors.push(this.lastId);
    this.markPager();
    this.refresh();
  }

  /** Whether other jobs are selected than those that are shown, because a request hasn't ended yet. */
  get isWaiting() {
    return this.shownQuery !== this.query.toString();
  }

  /** Say that the pager can't be used while the page waits. Its buttons keep the focus, which `disabled` would take. */
  markPager() {
    for (const button of [this.newer, this.older]) button.ariaDisabled = String(this.isWaiting);
  }

  async refresh() {
    const { signal } = this.leaving;
    let query = this.query.toString();
    try {
      if (!this.filters.isPoolWide && (await isAdmin(signal))) this.filters.allowTenants();
      query = this.query.toString();
      const page = await getJson(`v1/jobs?${query}`, { signal });
      if (this.maySeePool && page.data.some(({ state }) => state === "queued")) this.pool = await this.readPool();
      if (query !== this.query.toString()) return; // the user has selected other jobs meanwhile
      this.isRefused = false;
      this.shownQuery = query;
      showBox(this.problem, null);
      this.show(page);
    } catch (error) {
      if (signal.aborted) return;
      if (error.code === "job_not_found") return this.restart(); // the cursor's job has expired
      this.isRefused = error.isRefusal ?? false;
      showBox(this.problem, errorBox(error, () => this.refresh()));
    }
  }

  /** The pool's state, which estimates need; null for keys that may not see it. */
  async readPool() {
    try {
      return await getJson("v1/pool", { signal: this.leaving.signal });
    } catch (error) {
      this.maySeePool = !error.isRefusal;
      return null;
    }
  }

  show({ data, last_id: lastId, has_more: hasMore }) {
    this.lastId = lastId;
    keyed(this.body, data, {
      keyOf: ({ id }) => id,
      create: (job) => this.build(job),
      update: (_, job) => this.rows.get(job.id).update(job, this.pool),
    });
    const known = new Set(data.map(({ id }) => id));
    for (const id of this.rows.keys()) if (!known.has(id)) this.rows.delete(id);
    this.scroll.hidden = data.length === 0;
    this.newer.disabled = this.cursors.length === 1;
    this.older.disabled = !hasMore;
    this.markPager();
    setText(this.pageText, `Page ${this.cursors.length}`);
    fill(this.empty, data.length === 0 && emptyBox("No jobs here", h("p", null, emptyText(hasMore))));
  }

  build(job) {
    const row = new JobRow(job, this.actions);
    this.rows.set(job.id, row);
    return row.element;
  }

  openFromHash() {
    const id = hashPath();
    if (this.dialog?.id === id) return;
    this.dialog?.close();
    this.dialog = null;
    if (id) this.dialog = new JobDialog(id, { onClose: () => this.closed(id), actions: this.actions, poolNow: () => this.pool });
  }

  /** Called some time after the dialog is closed. By then, the dialog of another job may be open. */
  closed(id) {
    if (this.dialog !== null && this.dialog.id !== id) return;
    this.dialog = null;
    if (hashPath() === id) replaceHash(this.filters.hash());
    this.rows.get(id)?.link.focus();
  }

  async cancel(job) {
    const title = job.state === "running" ? "Cancel the running job?" : "Cancel the waiting job?";
    if (!(await confirmAction({ title, text: `Its request ends with the error "cancelled". Job ${job.id}, ${job.model}.`, action: "Cancel job" }))) return;
    await this.act(async () => {
      await sendJson("POST", `v1/jobs/${job.id}/cancel`);
      this.live.say("The job is cancelled");
    });
  }

  async retry(job) {
    await this.act(async () => {
      const again = await sendJson("POST", `v1/jobs/${job.id}/retry`);
      location.hash = this.filters.hash(again.id);
    });
  }

  /** Cancel or retry all jobs that the filters match, once the user has seen how many they are. */
  async actOnMany(name) {
    await this.act(async () => {
      const text = await actOnMany(name, this.filters.values, this.filters.text);
      if (text !== null) setText(this.done, text);
    });
  }

  async act(action) {
    try {
      await action();
      await this.refresh();
      await this.dialog?.refresh();
    } catch (error) {
      this.dialog?.close(); // the page shows the error
      fill(this.problem, errorBox(error));
    }
  }
}

function emptyText(hasMore) {
  if (hasMore) return "None of the jobs looked at so far matches. Older ones may.";
  return "Jobs stay here until some minutes after their ends. Send a request, or change the filters.";
}

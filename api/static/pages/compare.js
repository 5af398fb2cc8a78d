// The Compare page: one prompt to up to four models or versions, side by side.

import { hasKey, onKeyChange } from "../lib/api.js";
import { fill, h } from "../lib/dom.js";
import { errorBox, liveRegion, showBox } from "../lib/notices.js";
import { retryLater } from "../lib/polling.js";
import { showCode } from "./compare/code.js";
import { Column } from "./compare/column.js";
import { Form } from "./compare/form.js";
import { loadModels } from "./compare/models.js";
import { requestBody } from "./compare/request.js";
import { cancel, follow, hasEnded, newState } from "./compare/run.js";
import { forget, loadForm, loadRuns, openStore, saveForm, saveRuns } from "./compare/store.js";

const MAX_MODELS = 4;
const NUM_AT_FIRST = 2;
const SAVE_MS = 1000;

/** Show the page in `root`. Returns the function that leaves it. Runs keep running until the next visit. */
export async function mount(root) {
  await openStore();
  const page = new ComparePage(root);
  page.start();
  return () => page.stop();
}

class ComparePage {
  constructor(root) {
    this.leaving = new AbortController();
    this.columns = [];
    this.numBuilt = 0;
    this.isForgotten = false;
    this.changed = new Set();
    this.saved = loadForm();
    this.form = new Form({
      saved: this.saved,
      onChange: () => this.save(),
      onRun: () => this.run(),
      onStop: () => this.cancelRuns(),
      onClear: () => this.clear(),
      onAdd: () => this.add("").field.focus(),
      onTokens: () => this.columns.forEach((column) => this.show(column)),
    });
    this.options = h("datalist", { id: "compare-models" });
    this.problem = h("div");
    this.grid = h("div", { class: "compare-grid" });
    this.live = liveRegion();
    fill(root, this.form.element, this.options, this.problem, this.grid, this.live.element);
  }

  start() {
    const runs = loadRuns() ?? [];
    const models = this.saved?.models ?? Array(NUM_AT_FIRST).fill("");
    for (const model of models) this.add(model);
    this.columns.forEach((column, index) => runs[index] && this.follow(column, continued(runs[index])));
    const { signal } = this.leaving;
    addEventListener("pagehide", () => this.save(), { signal });
    const stopKey = onKeyChange(() => hasKey() || this.loggedOut());
    signal.addEventListener("abort", stopKey);
    this.timer = setInterval(() => this.isRunning && this.save(), SAVE_MS);
    this.suggest();
  }

  stop() {
    this.save();
    clearInterval(this.timer);
    this.leaving.abort();
  }

  get isRunning() {
    return this.columns.some(({ state }) => state !== null && !hasEnded(state));
  }

  add(model) {
    this.numBuilt += 1;
    const column = new Column({
      id: `compare-${this.numBuilt}`,
      model,
      onChange: () => this.save(),
      onRemove: () => this.remove(column),
      showRequest: () => showCode(requestBody(this.form.values, column.model || "MODEL")),
    });
    this.columns.push(column);
    this.grid.append(column.element);
    column.show(null, false);
    this.arrange();
    return column;
  }

  remove(column) {
    this.drop(column);
    this.columns = this.columns.filter((other) => other !== column);
    column.element.remove();
    this.arrange();
    this.save();
    this.form.addButton.focus();
  }

  arrange() {
    this.columns.forEach((column, index) => column.setNumber(index + 1, this.columns.length === 1));
    this.form.addButton.disabled = this.columns.length >= MAX_MODELS;
    this.grid.dataset.columns = this.columns.length;
    this.update();
  }

  run() {
    if (this.isRunning) return;
    for (const { field } of this.columns) if (!field.reportValidity()) return;
    this.live.say(`Asking ${this.columns.length} models`);
    for (const column of this.columns) this.follow(column, newState(requestBody(this.form.values, column.model)));
    this.save();
  }

  /** Show and follow a run in a column. */
  follow(column, state) {
    column.following?.abort();
    column.following = new AbortController();
    column.state = state;
    this.show(column);
    if (hasEnded(state)) return;
    const signal = AbortSignal.any([this.leaving.signal, column.following.signal]);
    const changed = () => this.showSoon(column);
    follow(state, signal, changed).then(() => this.ended(column), () => {}); // rejected if the run is no longer followed
  }

  ended(column) {
    this.show(column);
    this.save();
    if (!this.isRunning) this.live.say("All answers have ended");
  }

  async cancelRuns() {
    try {
      await Promise.all(this.columns.filter(({ state }) => state).map((column) => this.cancelRun(column)));
    } catch (error) {
      fill(this.problem, errorBox(error));
    }
  }

  /** Cancel a column's run, and follow it to its end. */
  async cancelRun(column) {
    const { state } = column;
    // The browser limits its connections to a server, and streams may use all of them.
    if (state.job !== null) column.following.abort();
    try {
      await cancel(state);
    } finally {
      if (column.state === state && state.job !== null) this.follow(column, state);
    }
  }

  /** Cancel a column's run and stop showing it. */
  drop(column) {
    column.following?.abort();
    if (column.state) cancel(column.state).catch(() => {}); // otherwise, the job ends by itself
    column.show(null, false);
  }

  clear() {
    for (const column of this.columns) this.drop(column);
    this.form.reset();
    this.update();
    forget();
    this.form.fields.prompt.focus();
  }

  /** Show a column once, with the next frame, even if several pieces arrive before it. */
  showSoon(column) {
    if (this.changed.size === 0) requestAnimationFrame(() => this.showChanged());
    this.changed.add(column);
  }

  showChanged() {
    for (const column of this.changed) this.show(column);
    this.changed.clear();
  }

  show(column) {
    column.show(column.state, this.form.fields.logprobs.checked);
    this.update();
  }

  update() {
    this.form.stopButton.disabled = !this.isRunning;
    this.form.runButton.disabled = this.isRunning;
  }

  /** Forget prompts and answers, because they belong to the key. */
  loggedOut() {
    this.isForgotten = true;
    forget();
  }

  save() {
    if (this.isForgotten) return;
    saveForm({ ...this.form.values, models: this.columns.map((column) => column.model) });
    saveRuns(this.columns.map((column) => column.state));
  }

  /** Suggest the pool's models, and choose the first ones at the first visit. */
  async suggest() {
    const { signal } = this.leaving;
    try {
      const { names, options } = await loadModels(signal);
      showBox(this.problem, null);
      fill(this.options, options);
      if (this.columns.some((column) => column.model)) return;
      const adaptersFirst = [...names.slice(1), ...names.slice(0, 1)];
      this.columns.forEach((column, index) => (column.field.value = adaptersFirst[index] ?? ""));
    } catch (error) {
      if (signal.aborted) return;
      showBox(this.problem, errorBox(error, () => this.suggest()));
      retryLater(() => this.suggest(), error, signal);
    }
  }
}

/** A run of an earlier visit. Times between the visits can't be measured. */
function continued(state) {
  return { ...state, isContinued: state.isContinued || !hasEnded(state) };
}

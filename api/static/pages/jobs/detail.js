// The dialog about one job: its state, its request if this browser sent it, and its answer.

import { getJson } from "../../lib/api.js";
import { fill, h, setText } from "../../lib/dom.js";
import { clock, count, duration } from "../../lib/format.js";
import { errorBox, showBox } from "../../lib/notices.js";
import { poll } from "../../lib/polling.js";
import { loadRuns } from "../compare/store.js";
import { answersOf } from "./answer.js";
import { isUnfinished, mayRetry, placeOf, showState } from "./list.js";
import { hashOf } from "../../lib/location.js";
import { workerLink } from "../pool/names.js";
import { callsText, followJob } from "./stream.js";
import { timelineSection } from "./timeline.js";

const REFRESH_MS = 2000;

/**
 * Show a job and follow it while the dialog is open. `onClose()` is called when it closes; `actions`
 * are those of the table's rows; `poolNow()` returns the body of GET /v1/pool or null.
 */
export class JobDialog {
  constructor(id, { onClose, actions, poolNow }) {
    this.id = id;
    this.poolNow = poolNow;
    this.closing = new AbortController();
    this.job = null;
    this.isRefused = false;
    this.isFollowed = false;
    this.texts = [];
    this.badge = h("span", { class: "badge" });
    this.facts = h("dl", { class: "findings" });
    this.error = h("div");
    this.request = h("div");
    this.timeline = timelineSection();
    this.answer = h("div", { class: "stack" });
    this.live = h("p", { class: "muted", role: "status" });
    this.cancel = h("button", { type: "button", class: "button button-danger", hidden: true, onclick: () => actions.cancel(this.job) }, "Cancel job");
    this.retry = h("button", { type: "button", class: "button", hidden: true, onclick: () => actions.retry(this.job) }, "Retry");
    this.dialog = h(
      "dialog",
      { class: "dialog dialog-job", "aria-labelledby": "job-title" },
      h("div", { class: "row" }, h("h2", { id: "job-title" }, "Job"), this.badge, h("span", { class: "spacer" }), h("button", { type: "button", class: "button button-quiet button-icon", "aria-label": "Close", onclick: () => this.dialog.close() }, "✕")),
      h("code", { class: "job-id" }, id),
      this.error, this.facts, this.timeline.element, this.request,
      h("section", { class: "stack" }, h("div", { class: "row" }, h("h3", null, "Answer"), this.live), this.answer),
      h("div", { class: "dialog-actions" }, this.cancel, this.retry),
    );
    this.dialog.addEventListener("close", () => {
      this.closing.abort();
      this.dialog.remove();
      onClose();
    });
    document.body.append(this.dialog);
    this.dialog.showModal();
    this.start();
  }

  close() {
    this.dialog.close();
  }

  start() {
    poll(() => this.isSettled || this.refresh(), { everyMs: REFRESH_MS, signal: this.closing.signal });
  }

  /** True if the server has no more news of the job: it has ended, is unknown, or needs another key. */
  get isSettled() {
    return this.isRefused || (this.job !== null && !isUnfinished(this.job));
  }

  async refresh() {
    const { signal } = this.closing;
    try {
      this.job = await getJson(`v1/jobs/${encodeURIComponent(this.id)}`, { signal });
      this.isRefused = false;
      this.show();
      if (isUnfinished(this.job) && !this.isFollowed) this.follow();
    } catch (error) {
      if (signal.aborted) return;
      this.isRefused = error.isRefusal || error.status === 404;
      showBox(this.error, errorBox(error, () => this.refresh()));
    }
  }

  /** Show the answer while it is generated. */
  async follow() {
    const { signal } = this.closing;
    let problem = "";
    this.isFollowed = true;
    setText(this.live, "live");
    try {
      for await (const piece of followJob(this.id, { signal })) {
        if (piece.isRestart) this.texts = [];
        else this.add(piece);
        this.showTexts(this.texts);
      }
    } catch (error) {
      problem = error.status === 404 ? "Answers of other tenants aren't shown." : error.message;
    }
    if (signal.aborted) return;
    setText(this.live, problem);
    await this.refresh();
  }

  add({ choice, text, reasoning, calls }) {
    for (let index = this.texts.length; index <= choice; index += 1) this.texts.push({ title: `Choice ${index + 1}`, text: "", reasoning: "" });
    this.texts[choice].text += text + callsText(calls);
    this.texts[choice].reasoning += reasoning;
  }

  show() {
    const { job } = this;
    showState(this.badge, job);
    if (!isUnfinished(job)) setText(this.live, ""); // a job that failed shows its error
    fill(this.facts, factsOf(job, this.poolNow()).map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))));
    fill(this.error, job.error && h("div", { class: "notice notice-error" }, h("strong", null, job.error.code ?? job.error.type), h("p", null, job.error.message)));
    this.timeline.show(job);
    const sent = (loadRuns() ?? []).find((run) => run?.job === job.id);
    if (!this.request.hasChildNodes()) fill(this.request, requestPart(sent));
    this.cancel.hidden = !isUnfinished(job);
    this.retry.hidden = !mayRetry(job);
    const answers = answersOf(job);
    if (answers.length) this.showTexts(answers);
    else if (!isUnfinished(job) && !this.texts.length) fill(this.answer, h("p", { class: "muted" }, "There is no answer."));
  }

  showTexts(texts) {
    while (this.answer.children.length > texts.length || this.answer.firstElementChild?.tagName === "P") this.answer.lastElementChild.remove();
    texts.forEach((each, index) => {
      const box = this.answer.children[index] ?? this.answer.appendChild(answerBox());
      const [title, reasoning, text] = box.children;
      title.hidden = texts.length === 1;
      setText(title, each.title);
      reasoning.hidden = !each.reasoning;
      setText(reasoning, each.reasoning ?? "");
      setText(text, each.text);
    });
  }
}

function answerBox() {
  return h("div", null, h("h4", { class: "muted" }), h("div", { class: "job-text muted" }), h("div", { class: "job-text", tabindex: "0", role: "region", "aria-label": "Text of the answer" }));
}

function requestPart(run) {
  const text = run
    ? h("pre", { class: "code", tabindex: "0", role: "region", "aria-label": "Request" }, JSON.stringify(run.body, null, 2))
    : h("p", { class: "muted" }, "The server doesn't return requests. Those of this tab's Compare page are shown here.");
  return h("details", { open: Boolean(run) }, h("summary", null, "Request"), text);
}

function factsOf(job, pool) {
  const { usage } = job;
  const served = job.started_ms && job.ended_ms ? (job.ended_ms - job.started_ms) / 1000 : null;
  const facts = [
    ["Model", job.model],
    ["Version", job.version],
    ["Tenant", job.tenant],
    ["Accepted", clock(job.created_ms / 1000)],
    ["Started", job.started_ms && clock(job.started_ms / 1000)],
    ["Ended", job.ended_ms && clock(job.ended_ms / 1000)],
    ["Waited", job.started_ms && duration((job.started_ms - job.created_ms) / 1000)],
    ["Served in", served !== null && duration(served)],
    ["Queue", job.state === "queued" && placeOf(job, pool)],
    ["Worker", job.worker && h("a", { href: workerLink(job.worker) }, job.worker)],
    ["Retried as", job.retried_as && h("a", { href: hashOf("jobs", { path: job.retried_as }) }, job.retried_as)],
    ["Tries", job.tries],
    ["Tokens", usage && `${count(usage.prompt_tokens)} in, ${count(usage.completion_tokens)} out`],
    ["Finish", job.choices?.map((choice) => choice.finish_reason).join(", ")],
  ];
  return facts.filter(([, value]) => value !== null && value !== undefined && value !== false && value !== "");
}

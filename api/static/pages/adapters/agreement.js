// How the answers of a shadow compare with the current version's.

import { h, keyed, setText } from "../../lib/dom.js";

/** A box that is hidden while an adapter has no shadow. */
export class Agreement {
  constructor() {
    this.counts = h("p");
    this.label = h("summary");
    this.hint = h("p", { class: "muted" }, "Only the tenant of a request can read its answers.");
    this.pairs = h("ul", { class: "pairs" });
    this.differing = h("details", null, this.label, this.hint, this.pairs);
    this.element = h("div", { class: "row-message", hidden: true }, this.counts, this.differing);
  }

  hide() {
    this.element.hidden = true;
  }

  /** Show the body of GET /v1/adapters/{name}/candidate. */
  show({ agreement, differing }) {
    const { pairs, equal, failed, similarity } = agreement;
    const mean = similarity === null ? "" : `, mean similarity ${similarity.toFixed(3)}`;
    setText(this.counts, `${whole(pairs)} ${pairs === 1 ? "pair" : "pairs"} compared: ${whole(equal)} equal, ${whole(failed)} failed${mean}`);
    setText(this.label, `Newest pairs that differ (${differing.length})`);
    this.differing.hidden = differing.length === 0;
    this.hint.hidden = differing.every(isReadable);
    keyed(this.pairs, differing, { keyOf: ({ copy_job: job }) => job, create: pairItem });
    this.element.hidden = false;
  }
}

/** Rounded numbers would hide the few pairs that differ. */
function whole(number) {
  return number.toLocaleString("en");
}

function isReadable({ current_text: text }) {
  return text !== null;
}

function pairItem(pair) {
  const { job, similarity, error, current_text: current, candidate_text: tried } = pair;
  const name = isReadable(pair) ? h("a", { href: `#/jobs/${job}` }, job.slice(0, 8)) : h("code", null, job);
  return h(
    "li", null,
    name, ` similarity ${similarity.toFixed(3)}`,
    isReadable(pair) && h("dl", { class: "findings pair-texts" }, textRow("Current", current), textRow("Candidate", tried ?? error ?? "not kept")),
    !isReadable(pair) && error && h("p", null, error),
  );
}

function textRow(name, text) {
  return h("div", null, h("dt", null, name), h("dd", null, text));
}

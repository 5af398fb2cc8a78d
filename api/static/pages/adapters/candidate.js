// The dialog that tries out a version, and what it shows of a candidate.

import { formDialog } from "../../lib/form_dialog.js";
import { fill, h } from "../../lib/dom.js";
import { count, plural } from "../../lib/format.js";

const SOURCE = ""; // value of the choice that is no version
const MODES = [
  ["canary", "Canary: it answers a share of the requests"],
  ["shadow", "Shadow: it computes copies of a share, and the answers are compared"],
];

/** "canary 10 %", "shadow 100 %". */
export function shareText({ mode, percent }) {
  return `${mode} ${percent} %`;
}

/**
 * Ask for the candidate of an adapter, or for another share of the one that it has.
 *
 * `send(body)` tells the server. Resolves to its answer, or to null if the dialog was closed.
 */
export function candidateDialog(adapter, send) {
  const { id, candidate } = adapter;
  const which = candidate ? null : new WhichVersion(adapter.previous);
  const modes = MODES.map(([mode, label], place) => {
    const checked = candidate ? mode === candidate.mode : place === 0;
    const input = h("input", { type: "radio", name: "candidate-mode", value: mode, checked });
    return { input, element: h("label", { class: "check" }, input, label) };
  });
  const share = h("input", { id: "candidate-percent", type: "number", required: true, min: "0", max: "100", step: "any", value: String(candidate?.percent ?? 10), "aria-describedby": "candidate-hint" });
  const body = () => ({
    ...which?.body,
    mode: modes.find(({ input }) => input.checked).input.value,
    percent: share.valueAsNumber,
  });
  return formDialog({
    title: candidate ? `Share of ${candidate.version}` : `Try out a version of ${id}`,
    fields: [
      which?.elements,
      h("fieldset", { class: "choice" }, h("legend", { class: "visually-hidden" }, "Mode"), modes.map(({ element }) => element)),
      h(
        "div", { class: "field" },
        h("label", { for: "candidate-percent" }, "Per cent of the requests"), share,
        h("p", { id: "candidate-hint", class: "muted" }, "Requests of one user are on the same side. Requests for a version in full, name@digest, aren't affected."),
      ),
    ],
    submit: { label: candidate ? "Change" : "Try out", tone: "button-primary", run: () => send(body()) },
    busy: candidate ? "The server changes the share …" : "The server checks the version …",
  });
}

/** Fields that name a source or a previous version. */
class WhichVersion {
  constructor(previous) {
    this.path = h("input", { id: "candidate-path", type: "text", required: true, autocomplete: "off", spellcheck: "false", placeholder: "/adapters/sql-v2 or acme/sql-lora" });
    this.pathPart = h("div", { class: "field" }, h("label", { for: "candidate-path" }, "Source"), this.path);
    const options = previous.map(({ version }, place) => h("option", { value: version }, `${version} (previous ${place + 1})`));
    this.version = h("select", { id: "candidate-version", onchange: () => this.show() }, h("option", { value: SOURCE }, "From a folder or the hub"), options);
    const versionPart = h("div", { class: "field" }, h("label", { for: "candidate-version" }, "Version"), this.version);
    this.elements = [previous.length > 0 && versionPart, this.pathPart];
  }

  get isSource() {
    return this.version.value === SOURCE;
  }

  get body() {
    return this.isSource ? { source: this.path.value.trim() } : { version: this.version.value };
  }

  show() {
    this.pathPart.hidden = !this.isSource;
    this.path.required = this.isSource;
  }
}

/** Show in `box` how the answers of a shadow compare; `details` is the server's, or null. */
export function showAgreement(box, details) {
  if (details?.mode !== "shadow") {
    fill(box);
    return;
  }
  const { pairs, equal, failed, similarity } = details.agreement;
  const mean = similarity === null ? "" : `, mean similarity ${similarity.toFixed(3)}`;
  const isOpen = box.querySelector("details")?.open ?? false;
  fill(
    box,
    h("p", null, `${plural(pairs, "pair")} compared: ${count(equal)} equal, ${count(failed)} failed${mean}`),
    details.differing.length > 0 &&
      h("details", { open: isOpen }, h("summary", null, `Newest pairs that differ (${details.differing.length})`), h("ul", { class: "pairs" }, details.differing.map(pairItem))),
  );
}

function pairItem({ job, similarity, error, current_text: current, candidate_text: tried }) {
  return h(
    "li", null,
    h("a", { href: `#/jobs/${job}` }, job.slice(0, 8)), ` similarity ${similarity.toFixed(3)}`,
    error && h("p", null, error),
    current !== null && h("dl", { class: "findings pair-texts" }, textRow("Current", current), textRow("Candidate", tried ?? "")),
  );
}

function textRow(name, text) {
  return h("div", null, h("dt", null, name), h("dd", null, text));
}

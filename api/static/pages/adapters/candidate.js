// The dialog that tries out a version, or changes the candidate's share or mode.

import { formDialog } from "../../lib/form_dialog.js";
import { h } from "../../lib/dom.js";
import { radio } from "../../lib/radio.js";
import { sourceField } from "./source.js";

const SOURCE = ""; // value of the choice of a source instead of a version
const MODES = [
  ["canary", "Canary: it answers a share of the requests"],
  ["shadow", "Shadow: it computes copies of a share, and the answers are compared"],
];

/** "canary 10%", "shadow 100%"; "canary quarantined" if its requests killed their workers. */
export function shareText({ mode, percent, state }) {
  return state === "ready" ? `${mode} ${percent}%` : `${mode} ${state}`;
}

/**
 * Ask for the candidate of an adapter, or for another share of the present candidate.
 *
 * `send(body)` tells the server. Resolves to its answer, or to null if the dialog was closed.
 */
export function candidateDialog(adapter, send) {
  const { id, candidate } = adapter;
  const which = candidate ? null : new WhichVersion(adapter.previous);
  const version = which ? () => which.body : () => ({ version: candidate.version });
  const modes = MODES.map(([mode, label], place) => {
    const checked = candidate ? mode === candidate.mode : place === 0;
    return radio({ name: "candidate-mode", value: mode, checked }, label);
  });
  const share = h("input", { id: "candidate-percent", type: "number", required: true, min: "0", max: "100", step: "any", value: String(candidate?.percent ?? 10), autofocus: candidate !== null, "aria-describedby": "candidate-hint" });
  const body = () => ({
    ...version(),
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
        h("p", { id: "candidate-hint", class: "muted" }, "All requests of one user go the same way; those that name no user are spread at random. Requests for a version in full, name@digest, aren't affected."),
      ),
    ],
    submit: { label: candidate ? "Change" : "Try out", tone: "button-primary", run: () => send(body()) },
    busy: candidate ? "The server changes the share …" : "The server checks the version …",
  });
}

/** Fields that name a source or a previous version. */
class WhichVersion {
  constructor(previous) {
    this.source = sourceField({ id: "candidate-path", placeholder: "/adapters/new-version or acme/new-version" });
    const options = previous.map(({ version, state }, place) => state === "ready" && h("option", { value: version }, `${version} (previous ${place + 1})`));
    this.version = h("select", { id: "candidate-version", onchange: () => this.show() }, h("option", { value: SOURCE }, "From a folder or the hub"), options);
    const versionPart = h("div", { class: "field" }, h("label", { for: "candidate-version" }, "Version"), this.version);
    this.elements = [previous.length > 0 && versionPart, this.source.element];
  }

  get isSource() {
    return this.version.value === SOURCE;
  }

  get body() {
    return this.isSource ? { source: this.source.input.value.trim() } : { version: this.version.value };
  }

  show() {
    this.source.element.hidden = !this.isSource;
    this.source.input.required = this.isSource;
  }
}

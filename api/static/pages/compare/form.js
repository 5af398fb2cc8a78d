// The form of the Compare page: the prompt and the sampling parameters.

import { h } from "../../lib/dom.js";

const EMPTY = { prompt: "", system: "", temperature: "0", max_tokens: "256", seed: "", logprobs: false };

/** The form. `saved` has its values or is null; `onChange()` is called after each edit. */
export class Form {
  constructor({ saved, onChange, onRun, onStop, onClear, onAdd, onTokens }) {
    const values = { ...EMPTY, ...saved };
    const number = (name, props) => h("input", { id: `compare-${name}`, type: "number", value: values[name], ...props });
    this.fields = {
      prompt: h("textarea", { id: "compare-prompt", rows: "4", required: true, value: values.prompt, placeholder: "Ask every model the same" }),
      system: h("textarea", { id: "compare-system", rows: "2", value: values.system, placeholder: "Optional" }),
      temperature: number("temperature", { min: "0", max: "2", step: "any", placeholder: "1" }),
      max_tokens: number("max_tokens", { min: "1", step: "1", placeholder: "no limit" }),
      seed: number("seed", { step: "1", placeholder: "random" }),
      logprobs: h("input", { id: "compare-logprobs", type: "checkbox", checked: values.logprobs, onchange: onTokens }),
    };
    this.runButton = h("button", { type: "submit", class: "button button-primary", title: "Ctrl+Enter" }, "Run");
    this.stopButton = h("button", { type: "button", class: "button button-danger", disabled: true, onclick: onStop }, "Stop");
    this.addButton = h("button", { type: "button", class: "button", onclick: onAdd }, "Add a model");
    this.clearButton = h("button", { type: "button", class: "button button-quiet", onclick: onClear }, "Clear");
    const { prompt, system, temperature, max_tokens: maxTokens, seed, logprobs } = this.fields;
    this.element = h(
      "form",
      { class: "panel compare-form", oninput: onChange, onkeydown: (event) => this.submitByKey(event) },
      h("div", { class: "compare-prompts" }, field("Prompt", prompt), field("System prompt", system)),
      h("div", { class: "compare-sampling" }, field("Temperature", temperature), field("Max tokens", maxTokens), field("Seed", seed)),
      h(
        "div",
        { class: "row" },
        this.runButton, this.stopButton, this.addButton,
        h("label", { class: "check" }, logprobs, "Token probabilities"),
        h("span", { class: "token-legend", "aria-hidden": "true" }, "likely", h("i", { class: "token-scale" }), "unlikely"),
        h("span", { class: "spacer" }),
        this.clearButton,
      ),
    );
    this.element.addEventListener("submit", (event) => {
      event.preventDefault();
      onRun();
    });
  }

  get values() {
    const entries = Object.entries(this.fields).map(([name, node]) => [name, node.type === "checkbox" ? node.checked : node.value]);
    return Object.fromEntries(entries);
  }

  reset() {
    for (const [name, node] of Object.entries(this.fields)) {
      if (node.type === "checkbox") node.checked = EMPTY[name];
      else node.value = EMPTY[name];
    }
  }

  submitByKey(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.element.requestSubmit(this.runButton);
  }
}

function field(label, node) {
  return h("div", { class: "field" }, h("label", { for: node.id }, label), node);
}

// The models, the system prompt, the parameters and the tools of a chat.

import { fill, h } from "../../lib/dom.js";
import { MAX_MODELS } from "./chats.js";

const NUMBERS = {
  temperature: ["Temperature", { min: "0", max: "2", step: "any", placeholder: "1" }],
  top_p: ["Top p", { min: "0", max: "1", step: "any", placeholder: "1" }],
  max_tokens: ["Max tokens", { min: "1", step: "1", placeholder: "no limit" }],
  seed: ["Seed", { step: "1", placeholder: "random" }],
};

/**
 * Build the form. `onChange(values)` is called after each edit, with `{models, system, parameters, tools}`.
 * `show(chat)` shows a chat's settings, and `suggest(options)` the models of the pool.
 */
export class Settings {
  constructor(onChange) {
    this.onChange = onChange;
    this.models = h("div", { class: "row chat-models" });
    this.options = h("datalist", { id: "chat-models" });
    this.add = h("button", { type: "button", class: "button button-small", onclick: () => this.addModel() }, "Compare with another model");
    this.system = h("textarea", { id: "chat-system", rows: "2", placeholder: "Optional" });
    this.numbers = Object.entries(NUMBERS).map(([name, [label, props]]) => ({ name, label, input: h("input", { id: `chat-${name}`, type: "number", ...props }) }));
    this.tools = h("textarea", { id: "chat-tools", rows: "3", class: "mono", placeholder: '[{"type": "function", "function": {"name": "weather", "parameters": {}}}]', "aria-describedby": "chat-tools-hint", spellcheck: "false" });
    this.element = h(
      "form", { class: "panel chat-settings", oninput: () => this.changed() },
      h("div", { class: "row" }, this.models, this.add), this.options,
      h(
        "details", null, h("summary", null, "System prompt, parameters and tools"),
        h("div", { class: "stack" },
          field("System prompt", this.system),
          h("div", { class: "chat-numbers" }, this.numbers.map(({ label, input }) => field(label, input))),
          field("Tools", this.tools, h("p", { id: "chat-tools-hint", class: "muted" }, "A JSON array, as in the field tools of /v1/chat/completions. Results of their calls are yours to give.")),
        ),
      ),
    );
    this.element.addEventListener("submit", (event) => event.preventDefault());
  }

  get values() {
    return {
      models: this.fields.map(({ value }) => value),
      system: this.system.value,
      parameters: Object.fromEntries(this.numbers.map(({ name, input }) => [name, input.value])),
      tools: this.tools.value,
    };
  }

  get fields() {
    return [...this.models.querySelectorAll("input")];
  }

  changed() {
    this.onChange(this.values);
  }

  show({ models, system, parameters, tools }) {
    fill(this.models, models.map((model, index) => this.modelField(model, index, models.length)));
    this.add.disabled = models.length >= MAX_MODELS;
    this.system.value = system;
    for (const { name, input } of this.numbers) input.value = parameters[name] ?? "";
    this.tools.value = tools;
  }

  suggest(options) {
    fill(this.options, options);
  }

  modelField(model, index, num) {
    const input = h("input", { type: "text", list: "chat-models", value: model, required: true, "aria-label": num === 1 ? "Model" : `Model ${index + 1}`, placeholder: "Model or name@version", autocomplete: "off", spellcheck: "false" });
    const remove = h("button", { type: "button", class: "button button-quiet button-icon", "aria-label": `Remove model ${index + 1}`, onclick: () => this.removeModel(index) }, "✕");
    return h("span", { class: "row chat-model-field" }, input, num > 1 && remove);
  }

  addModel() {
    this.show({ ...this.values, models: [...this.values.models, ""] });
    this.changed();
    this.fields.at(-1).focus();
  }

  removeModel(index) {
    this.show({ ...this.values, models: this.values.models.filter((_, i) => i !== index) });
    this.onChange(this.values, index);
    this.fields[0].focus();
  }

  /** True if all fields are valid. Otherwise, the browser points at the first one that isn't. */
  check() {
    const invalid = [...this.element.elements].find((each) => !each.checkValidity());
    if (invalid) invalid.closest("details")?.setAttribute("open", "");
    return this.element.reportValidity();
  }
}

function field(label, input, hint = null) {
  return h("div", { class: "field" }, h("label", { for: input.id }, label), input, hint);
}

// One turn of a chat: what the user or the tools said, and the answers of the models side by side.

import { fill, h, setText } from "../../lib/dom.js";
import { AnswerView } from "./answer.js";

/**
 * Build a turn. `actions`: `editText(index, text)`, `editAnswer(index, model, text)`, `regenerate(index, model)`
 * and `sendResults(results)`.
 */
export class TurnView {
  constructor(index, numModels, actions) {
    this.index = index;
    this.text = h("div", { class: "chat-text" });
    this.results = h("div", { class: "stack" });
    const edit = h("button", { type: "button", class: "button button-quiet button-small", "aria-label": `Edit message ${index + 1}`, onclick: () => this.edit(this.said, this.text.textContent, (text) => actions.editText(index, text)) }, "Edit");
    this.editRow = h("div", { class: "row chat-actions" }, edit);
    this.said = h("article", { class: "chat-said", "aria-label": `Message ${index + 1}` }, this.text, this.results, this.editRow);
    this.answers = Array.from({ length: numModels }, (_, model) => this.answer(model, numModels, actions));
    this.pending = h("div");
    this.element = h("div", { class: "chat-turn" }, this.said, h("div", { class: "chat-answers" }, this.answers.map(({ element }) => element)), this.pending);
    this.actions = actions;
    this.asked = ""; // ids of the calls whose results are asked for
  }

  answer(model, numModels, actions) {
    const name = numModels === 1 ? `answer ${this.index + 1}` : `answer ${this.index + 1} of model ${model + 1}`;
    const view = new AnswerView(name, {
      regenerate: () => actions.regenerate(this.index, model),
      edit: () => this.edit(view.element, view.text.textContent, (text) => actions.editAnswer(this.index, model, text)),
    });
    return view;
  }

  show(turn, models, { isLast }) {
    setText(this.text, turn.text ?? "");
    this.text.hidden = turn.text === null;
    this.editRow.hidden = turn.text === null;
    fill(this.results, turn.results.map(({ text }) => h("div", { class: "chat-call" }, h("span", { class: "muted" }, "Tool result"), h("pre", { class: "code" }, text))));
    this.answers.forEach((view, model) => view.show(turn.answers[model] ?? null, models[model], { isLast }));
    this.showPending(turn, isLast && models.length === 1);
  }

  /** Ask for the results of the tools that the only model called last. */
  showPending(turn, isAsked) {
    const answer = turn.answers[0];
    const calls = isAsked && answer?.phase === "done" ? answer.calls : [];
    const ids = calls.map(({ id }) => id).join();
    if (ids === this.asked) return;
    this.asked = ids;
    const fields = calls.map((call, i) => h("textarea", { rows: "2", "aria-label": `Result of ${call.name}, call ${i + 1}`, placeholder: `What ${call.name} returns` }));
    const form = h("form", { class: "stack chat-results" }, fields, h("div", { class: "row" }, h("button", { type: "submit", class: "button" }, "Send results")));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.actions.sendResults(calls.map(({ id }, i) => ({ id, text: fields[i].value })));
    });
    fill(this.pending, calls.length > 0 && form);
  }

  /** Replace the content of `element` with a form until the user saves or cancels. */
  edit(element, text, save) {
    if (element.querySelector(".chat-edit")) return;
    const field = h("textarea", { "aria-label": "Text", rows: String(Math.min(12, text.split("\n").length + 1)), value: text });
    const opener = element.querySelector('[aria-label^="Edit"]');
    const close = () => {
      form.remove();
      element.classList.remove("is-edited");
      opener.focus();
    };
    const form = h(
      "form", { class: "stack chat-edit", onkeydown: (event) => event.key === "Escape" && close() },
      field,
      h("div", { class: "row" }, h("button", { type: "submit", class: "button button-primary button-small" }, "Save"), h("button", { type: "button", class: "button button-small", onclick: close }, "Cancel")),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      close();
      save(field.value);
    });
    element.classList.add("is-edited");
    element.append(form);
    field.focus();
  }
}

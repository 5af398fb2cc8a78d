// One column of the Compare page: a model, its answer, and how the answer came.

import { fill, h, setAttr, setText } from "../../lib/dom.js";
import { count, duration } from "../../lib/format.js";
import { firstTokenS, hasEnded, tokensPerS } from "./run.js";
import { TokenView } from "./tokens.js";

/**
 * Build a column.
 *
 * `id` is unique in the page. `model` is the initial value of the field. `onChange()` is called when
 * the user changes the model, and `onRemove()` when the column is closed. `showRequest(opener)` shows
 * the request as code.
 */
export class Column {
  constructor({ id, model, onChange, onRemove, showRequest }) {
    this.state = null;
    this.field = h("input", {
      id: `${id}-model`, type: "text", list: "compare-models", value: model, required: true,
      autocomplete: "off", spellcheck: "false", placeholder: "Model or name@version", oninput: onChange,
    });
    this.removeButton = h("button", { type: "button", class: "button button-quiet button-icon", onclick: onRemove }, "✕");
    this.status = h("span", { class: "badge" });
    this.codeButton = h("button", {
      type: "button", class: "button button-quiet button-small", onclick: () => showRequest(this),
    }, "Code");
    this.text = h("div", { class: "answer-text", tabindex: "0", role: "region" });
    this.reasoning = h("details", { class: "reasoning", hidden: true }, h("summary", null, "Reasoning"), h("div", { class: "answer-text" }));
    this.tokens = new TokenView(`${id}-tokens`, "Tokens of the answer");
    this.error = h("div", { class: "column-error", role: "alert" });
    this.facts = h("dl", { class: "facts" });
    this.element = h(
      "section",
      { class: "panel compare-column" },
      h("div", { class: "column-head" }, h("label", { for: `${id}-model`, class: "visually-hidden" }, "Model"), this.field, this.removeButton),
      h("div", { class: "column-state" }, this.status, this.codeButton),
      h("div", { class: "column-answer" }, this.reasoning, this.text, this.tokens.element, this.error),
      this.facts,
    );
  }

  get model() {
    return this.field.value.trim();
  }

  /** Number the column. Screen readers use the number in the names of the column's parts. */
  setNumber(number, isOnly) {
    setAttr(this.element, "aria-label", `Model ${number}`);
    setAttr(this.field, "aria-label", `Model ${number}`);
    setAttr(this.text, "aria-label", `Answer ${number}`);
    setAttr(this.tokens.list, "aria-label", `Tokens of answer ${number}`);
    setAttr(this.codeButton, "aria-label", `Request ${number} as code`);
    setAttr(this.removeButton, "aria-label", `Remove model ${number}`);
    this.removeButton.disabled = isOnly;
  }

  /** Show a run's state; null shows that nothing ran yet. */
  show(state, withTokens) {
    this.state = state;
    const [label, tone] = statusOf(state);
    setText(this.status, label);
    setAttr(this.status, "class", `badge ${tone}`);
    setAttr(this.text, "aria-busy", state !== null && !hasEnded(state) ? "true" : null);
    const hasTokens = withTokens && Boolean(state?.tokens.length);
    this.text.hidden = hasTokens || Boolean(state?.error && !state.text);
    this.tokens.element.hidden = !hasTokens;
    setAttr(this.text, "class", state === null ? "answer-text answer-none" : "answer-text");
    this.showText(state);
    if (hasTokens) this.tokens.update(state.tokens);
    this.showReasoning(state?.reasoning ?? "");
    fill(this.error, state?.error && errorParts(state.error));
    fill(this.facts, state && factsOf(state));
  }

  /** Append only the new text, so that a long answer isn't laid out again for every token. */
  showText(state) {
    const wanted = state === null ? "The answer appears here." : state.text + callsOf(state);
    const shown = this.text.textContent;
    if (shown === wanted) return;
    const isNear = this.text.scrollHeight - this.text.scrollTop - this.text.clientHeight < 40;
    if (shown && wanted.startsWith(shown)) this.text.append(wanted.slice(shown.length));
    else this.text.textContent = wanted;
    if (isNear) this.text.scrollTop = this.text.scrollHeight;
  }

  showReasoning(text) {
    this.reasoning.hidden = text === "";
    setText(this.reasoning.lastElementChild, text);
  }
}

/** The tool calls of a run as text. Runs that an earlier release kept have none. */
function callsOf({ calls = [] }) {
  return calls.map((call) => `\n${call.name} ${call.arguments}`).join("");
}

function statusOf(state) {
  if (state === null) return ["Ready", ""];
  switch (state.phase) {
    case "sending":
      return ["Sending", "badge-info"];
    case "waiting":
      return [state.position ? `Waiting, position ${count(state.position)}` : "Waiting", "badge-info"];
    case "running":
      return ["Streaming", "badge-info"];
    case "done":
      return ["Done", "badge-good"];
    case "cancelled":
      return ["Stopped", "badge-warn"];
    default:
      return ["Failed", "badge-bad"];
  }
}

function errorParts({ status, code, message }) {
  const title = [status >= 400 && status, code].filter(Boolean).join(" · ");
  return [title && h("strong", null, title), h("p", null, message)];
}

function factsOf(state) {
  const first = firstTokenS(state);
  const rate = tokensPerS(state);
  const usage = state.usage;
  const facts = [
    ["Version", state.version ?? "–"],
    ["Finish", state.finish ?? "–"],
    ["First token", first === null ? "–" : duration(first)],
    ["Tokens/s", rate === null ? "–" : rate.toFixed(1)],
    ["Tokens", usage ? `${count(usage.prompt_tokens)} in, ${count(usage.completion_tokens)} out` : "–"],
  ];
  return facts.map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value)));
}

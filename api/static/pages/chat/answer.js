// One answer of a chat: its reasoning, text, tool calls, and what can be done with it.

import { fill, h, setAttr, setText } from "../../lib/dom.js";
import { count, duration } from "../../lib/format.js";
import { firstTokenS, hasEnded, tokensPerS } from "../compare/run.js";

const BADGES = {
  sending: ["Sending", "badge-info"], waiting: ["Waiting", "badge-info"], running: ["Answering", "badge-info"],
  done: ["", ""], cancelled: ["Stopped", "badge-warn"], failed: ["Failed", "badge-bad"],
};

/** Build an answer. `name` is its accessible name, `actions` are `{regenerate, edit}`; `show(state, model)` shows a state. */
export class AnswerView {
  constructor(name, actions) {
    this.badge = h("span", { class: "badge" });
    this.model = h("span", { class: "muted chat-model" });
    this.reasoning = h("details", { class: "reasoning", hidden: true }, h("summary", null, "Reasoning"), h("div", { class: "chat-text" }));
    this.text = h("div", { class: "chat-text" });
    this.calls = h("div", { class: "stack" });
    this.error = h("div", { class: "column-error", role: "alert" });
    this.facts = h("span", { class: "muted chat-facts" });
    this.regenerateButton = h("button", { type: "button", class: "button button-quiet button-small", "aria-label": `Regenerate ${name}`, onclick: actions.regenerate }, "Regenerate");
    this.editButton = h("button", { type: "button", class: "button button-quiet button-small", "aria-label": `Edit ${name}`, onclick: actions.edit }, "Edit");
    this.element = h(
      "article", { class: "chat-answer", "aria-label": name },
      h("div", { class: "row" }, this.model, this.badge),
      this.reasoning, this.text, this.calls, this.error,
      h("div", { class: "row chat-actions" }, this.regenerateButton, this.editButton, this.facts),
    );
  }

  /** `isLast`: the answer belongs to the last turn, so that it can be generated again. */
  show(state, model, { isLast }) {
    setText(this.model, state?.version ?? model);
    const [label, tone] = BADGES[state?.phase ?? "done"];
    const isBusy = state !== null && !hasEnded(state);
    setText(this.badge, state?.position && isBusy ? `Waiting, position ${count(state.position)}` : label);
    setAttr(this.badge, "class", `badge ${tone}`);
    this.badge.hidden = label === "";
    setAttr(this.element, "aria-busy", isBusy ? "true" : null);
    appendText(this.text, state?.text ?? "");
    this.reasoning.hidden = !state?.reasoning;
    appendText(this.reasoning.lastElementChild, state?.reasoning ?? "");
    this.showCalls(state?.calls ?? []);
    fill(this.error, state?.error && state.phase === "failed" && h("p", null, state.error.message));
    setText(this.facts, state && !isBusy ? factsOf(state) : "");
    this.regenerateButton.hidden = isBusy || !isLast;
    this.editButton.hidden = isBusy || !state;
  }

  showCalls(calls) {
    while (this.calls.children.length > calls.length) this.calls.lastElementChild.remove();
    calls.forEach((call, index) => {
      const box = this.calls.children[index] ?? this.calls.appendChild(callBox());
      setText(box.querySelector("code"), call.name);
      setText(box.querySelector("pre"), readable(call.arguments));
    });
  }
}

function callBox() {
  return h("div", { class: "chat-call" }, h("span", { class: "muted" }, "Tool call "), h("code"), h("pre", { class: "code" }));
}

/** Arguments that are complete JSON get line breaks. */
function readable(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** Append only the new text, so that a long answer isn't laid out again for every token. */
function appendText(node, wanted) {
  const shown = node.textContent;
  if (shown === wanted) return;
  if (shown && wanted.startsWith(shown)) node.append(wanted.slice(shown.length));
  else node.textContent = wanted;
}

function factsOf(state) {
  const first = firstTokenS(state);
  const rate = tokensPerS(state);
  const { usage, finish, isEdited } = state;
  return [
    isEdited && "edited",
    finish && finish !== "stop" && `ended by ${finish}`,
    usage && `${count(usage.prompt_tokens)} in, ${count(usage.completion_tokens)} out`,
    first !== null && `first token ${duration(first)}`,
    rate !== null && `${rate.toFixed(1)} tokens/s`,
  ].filter(Boolean).join(" · ");
}

// Tokens of an answer, tinted by their probabilities, with the alternatives of one of them.

import { fill, h, setAttr } from "../../lib/dom.js";

/** Tokens as a list box: one stop for the Tab key, arrow keys within. */
export class TokenView {
  constructor(id, label) {
    this.id = id;
    this.num = 0;
    this.current = null;
    this.tokens = [];
    // Characters may begin in one token and end in a later one.
    this.decoder = new TextDecoder();
    this.list = h("div", {
      id, class: "tokens", role: "listbox", tabindex: "0", "aria-label": label,
      onkeydown: (event) => this.move(event),
      onfocus: () => this.show(this.current ?? this.list.firstElementChild),
      onblur: () => this.hide(),
      onpointerover: (event) => event.target !== this.list && this.show(event.target),
      onpointerleave: () => this.list !== document.activeElement && this.hide(),
    });
    this.card = h("div", { class: "token-card", hidden: true, role: "status" });
    this.element = h("div", { class: "token-view" }, this.list, this.card);
  }

  /** Show `tokens`. The first of them may be shown already. */
  update(tokens) {
    if (tokens.length < this.num) this.clear();
    for (; this.num < tokens.length; this.num += 1) this.list.append(this.build(tokens[this.num]));
    this.tokens = tokens;
  }

  clear() {
    this.list.replaceChildren();
    this.hide();
    this.num = 0;
    this.current = null;
    this.decoder = new TextDecoder();
  }

  build(token) {
    const text = token.bytes === null ? "" : this.decoder.decode(new Uint8Array(token.bytes), { stream: true });
    const probability = Math.exp(token.logprob);
    return h(
      "span",
      {
        id: `${this.id}-${this.num}`, role: "option", "aria-selected": "false",
        class: text === "" ? "token token-part" : "token",
        "aria-label": `${token.token || "empty"}, ${percent(token.logprob)}`,
        style: { "--doubt": (1 - Math.min(1, probability)).toFixed(3) },
      },
      text,
    );
  }

  move(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const last = this.list.children.length - 1;
    if (event.key === "Escape") this.hide();
    const index = this.current ? [...this.list.children].indexOf(this.current) : 0;
    const target = { Home: 0, End: last }[event.key] ?? (step ? Math.min(last, Math.max(0, index + step)) : null);
    if (target === null) return;
    event.preventDefault();
    this.show(this.list.children[target]);
    this.current?.scrollIntoView({ block: "nearest" });
  }

  show(span) {
    if (!span) return;
    this.current?.setAttribute("aria-selected", "false");
    this.current = span;
    span.setAttribute("aria-selected", "true");
    setAttr(this.list, "aria-activedescendant", span.id);
    fill(this.card, cardOf(this.tokens[[...this.list.children].indexOf(span)]));
    this.card.hidden = false;
    const box = span.getBoundingClientRect();
    const around = this.element.getBoundingClientRect();
    const left = Math.min(Math.max(0, box.left - around.left), around.width - this.card.offsetWidth);
    this.card.style.setProperty("left", `${Math.max(0, left)}px`);
    this.card.style.setProperty("top", `${box.bottom - around.top + 4}px`);
  }

  hide() {
    this.current?.setAttribute("aria-selected", "false");
    this.card.hidden = true;
  }
}

function cardOf(token) {
  const isListed = token.top.some(([text]) => text === token.token);
  const rows = isListed ? token.top : [...token.top, [token.token, token.logprob]];
  return rows.map(([text, logprob]) =>
    h(
      "div",
      { class: text === token.token ? "token-row token-chosen" : "token-row" },
      h("code", null, visible(text)),
      h("span", { class: "token-bar", style: { "--p": Math.exp(logprob).toFixed(4) } }),
      h("span", { class: "num" }, percent(logprob)),
    ),
  );
}

/** A token's text with its white space made visible. */
function visible(text) {
  return text === "" ? "(empty)" : text.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥");
}

function percent(logprob) {
  const value = Math.exp(logprob) * 100;
  return value < 0.1 ? "<0.1%" : `${value.toFixed(1)}%`;
}

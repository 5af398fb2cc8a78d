// The field for a source that workers read.

import { h } from "../../lib/dom.js";

const HINT = "A folder as the workers see it, below one of their --adapter-root folders, or a repository of an organisation that they may use.";

/** Build the field. Returns `{input, element}`. */
export function sourceField({ id, placeholder }) {
  const hint = `${id}-hint`;
  const input = h("input", { id, type: "text", required: true, autocomplete: "off", spellcheck: "false", placeholder, "aria-describedby": hint });
  return { input, element: h("div", { class: "field" }, h("label", { for: id }, "Source"), input, h("p", { id: hint, class: "muted" }, HINT)) };
}

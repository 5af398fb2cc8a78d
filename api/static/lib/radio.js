// A radio button with its label.

import { h } from "./dom.js";

/** Build a radio button. `props` are the input's, for `h`. Returns `{input, element}`. */
export function radio(props, label) {
  const input = h("input", { type: "radio", ...props });
  return { input, element: h("label", { class: "check" }, input, label) };
}

// Asks before an action that affects others or can't be undone.

import { h } from "./dom.js";

/**
 * Show a question. Resolves to true if the user presses the button with the label `action`.
 *
 * `keep` is the label of the other button, and `tone` the class of the first one.
 */
export function confirmAction({ title, text, action, keep = "Keep it", tone = "button-danger" }) {
  return new Promise((resolve) => {
    const dialog = h(
      "dialog",
      { class: "dialog", "aria-labelledby": "confirm-title", "aria-describedby": "confirm-text" },
      h(
        "form",
        { method: "dialog" },
        h("h2", { id: "confirm-title" }, title),
        h("p", { id: "confirm-text" }, text),
        h(
          "div",
          { class: "dialog-actions" },
          h("button", { type: "submit", class: "button", value: "keep", autofocus: true }, keep),
          h("button", { type: "submit", class: `button ${tone}`, value: "act" }, action),
        ),
      ),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "act");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

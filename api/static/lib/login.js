// The dialog that asks for an API key.

import { hasKey, setKey } from "./api.js";
import { h } from "./dom.js";

/** Show the dialog; resolves to true once a key is set, to false if it was closed. */
export function askForKey(error) {
  return new Promise((resolve) => {
    const field = h("input", {
      id: "login-key",
      name: "key",
      type: "password",
      required: true,
      autocomplete: "off",
      spellcheck: "false",
      "aria-describedby": "login-hint login-error",
    });
    const isRefused = error !== null && hasKey();
    const dialog = h(
      "dialog",
      { class: "dialog", "aria-labelledby": "login-title" },
      h(
        "form",
        { method: "dialog" },
        h("h2", { id: "login-title" }, "Log in"),
        h(
          "p",
          { id: "login-hint" },
          "This server asks for an API key. The key stays in this tab until you log out. Closing the tab also forgets it, unless the browser restores the tab.",
        ),
        h("label", { for: "login-key" }, "API key"),
        field,
        h("p", { id: "login-error", class: "error-text" }, isRefused ? "The server refused this key." : ""),
        h(
          "div",
          { class: "dialog-actions" },
          h("button", { type: "button", class: "button", onclick: () => dialog.close() }, "Cancel"),
          h("button", { type: "submit", class: "button button-primary", value: "login" }, "Log in"),
        ),
      ),
    );
    dialog.addEventListener("close", () => {
      const key = field.value.trim();
      const isGiven = dialog.returnValue === "login" && key !== "";
      dialog.remove();
      if (isGiven) setKey(key);
      resolve(isGiven);
    });
    document.body.append(dialog);
    dialog.showModal();
    field.focus();
  });
}

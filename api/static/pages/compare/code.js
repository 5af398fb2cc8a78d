// The dialog that shows a request as curl and as Python.

import { urlOf } from "../../lib/api.js";
import { copyText } from "../../lib/clipboard.js";
import { h } from "../../lib/dom.js";
import { asCurl, asPython } from "./request.js";

const PATH = "v1/chat/completions";

/** Show the request with this `body`. The key is never in the text. */
export function showCode(body) {
  const dialog = h(
    "dialog",
    { class: "dialog dialog-wide", "aria-labelledby": "code-title" },
    h("h2", { id: "code-title" }, "Request"),
    h("p", { class: "muted" }, "The curl command and the script send the first API key of the variable LORIKEET_API_KEYS, if it has one."),
    block("curl", asCurl(urlOf(PATH), body)),
    block("Python", asPython(urlOf("v1"), body)),
    h("div", { class: "dialog-actions" }, h("button", { type: "button", class: "button", onclick: () => dialog.close() }, "Close")),
  );
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

function block(name, text) {
  const code = h("pre", { class: "code", tabindex: "0", role: "region", "aria-label": name }, text);
  const button = h("button", { type: "button", class: "button button-small", "aria-label": `Copy ${name}`, onclick: () => copyText(code.textContent, { said: button, select: () => getSelection().selectAllChildren(code) }) }, "Copy");
  return h("section", { class: "stack code-block" }, h("div", { class: "row" }, h("h3", null, name), h("span", { class: "spacer" }), button), code);
}

// The dialog that keeps an adapter in the memory of workers.

import { formDialog } from "../../lib/form_dialog.js";
import { h } from "../../lib/dom.js";

const MAX_REPLICAS = 10_000; // limit of the API

/**
 * Ask how many workers keep an adapter. `send(body)` tells the server; null ends the pin.
 *
 * Resolves to the server's answer, or to null if the dialog was closed.
 */
export function pinDialog({ id, min_replicas: replicas }, send) {
  const number = h("input", { id: "pin-replicas", type: "number", required: true, min: "1", max: String(MAX_REPLICAS), step: "1", value: String(replicas || 1), "aria-describedby": "pin-hint" });
  return formDialog({
    title: `Pin ${id}`,
    fields: h(
      "div", { class: "field" },
      h("label", { for: "pin-replicas" }, "Workers"), number,
      h("p", { id: "pin-hint", class: "muted" }, "At least this many workers keep the current version in memory, so that its first request needs no load."),
    ),
    submit: { label: "Pin", tone: "button-primary", run: () => send({ min_replicas: number.valueAsNumber }) },
    other: replicas > 0 ? { label: "Unpin", run: () => send(null) } : null,
    busy: "The server changes the pin …",
  });
}

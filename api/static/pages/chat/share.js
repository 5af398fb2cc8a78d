// The dialog with a link that holds a chat.

import { copyText } from "../../lib/clipboard.js";
import { h } from "../../lib/dom.js";

const MAX_LENGTH = 32_000; // browsers and mail programs cut longer links

/** Show the link. */
export function shareDialog(link) {
  const isTooLong = link.length > MAX_LENGTH;
  const text = h("input", { id: "chat-link", type: "text", readonly: true, value: link, "aria-label": "Link", onfocus: () => text.select() });
  const done = h("span", { class: "muted", role: "status" });
  const close = h("button", { type: "button", class: "button", onclick: () => dialog.close() }, "Close");
  const button = h("button", { type: "button", class: "button button-primary", onclick: () => copyText(link, { said: done, select: () => text.focus() }) }, "Copy the link");
  const dialog = h(
    "dialog", { class: "dialog dialog-form", "aria-labelledby": "share-title" },
    h("div", { class: "stack" },
      h("h2", { id: "share-title" }, "Share this chat"),
      h("p", null, isTooLong ? "This chat is too long for a link." : "The link holds the whole chat behind its #, which browsers don't send to servers. Everybody who has the link can read the chat."),
      !isTooLong && text,
      h("div", { class: "dialog-actions" }, done, close, !isTooLong && button),
    ),
  );
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

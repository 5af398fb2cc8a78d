// Messages in the page: errors, empty states, and announcements for screen readers.

import { ApiError, login } from "./api.js";
import { fill, h } from "./dom.js";

/** A box that shows an error. Its button, if any, calls `retry`. After a 401, it asks for a key first. */
export function errorBox(error, retry = null) {
  const isKey = error instanceof ApiError && error.status === 401;
  const label = isKey ? "Log in" : "Try again";
  const act = async () => {
    if (!isKey || (await login())) retry();
  };
  return h(
    "div",
    { class: "notice notice-error", role: "alert" },
    h("strong", null, isKey ? "This server asks for an API key." : titleOf(error)),
    h("p", null, error.message),
    retry && h("button", { type: "button", class: "button", onclick: act }, label),
  );
}

/** A box that shows a problem that the page itself has found. */
export function problemBox(text) {
  return h("div", { class: "notice notice-error", role: "alert" }, h("p", null, text));
}

/**
 * A box for a page whose data can't be read. On 403 it says which pages this key may use.
 *
 * `what` names the data, such as "the pool", and `page` names the page.
 */
export function refusalBox(error, { what, page, retry }) {
  if (error.status !== 403) return errorBox(error, retry);
  return emptyBox(
    `This key may not see ${what}.`,
    h(
      "p",
      null,
      `The ${page} page needs a key with admin rights. `,
      h("a", { href: "#/chat" }, "Chat"),
      ", ",
      h("a", { href: "#/compare" }, "Compare"),
      ", ",
      h("a", { href: "#/jobs" }, "Jobs"),
      " and ",
      h("a", { href: "#/usage" }, "Usage"),
      " work with this one.",
    ),
  );
}

/**
 * Replace the content of `parent` with a box, or remove the content for null.
 *
 * If the box is unchanged, the old one stays: its button keeps the focus, and its text isn't announced again.
 */
export function showBox(parent, box) {
  if (box === null || !parent.firstElementChild?.isEqualNode(box)) fill(parent, box);
}

/** A quiet box for "nothing here yet", with what to do about it. */
export function emptyBox(title, ...body) {
  return h("div", { class: "notice notice-empty" }, h("strong", null, title), body);
}

function titleOf(error) {
  if (!(error instanceof ApiError)) return "The page failed.";
  return error.status === 0 ? "No connection." : `The server refused the request (${error.status}).`;
}

/** A polite live region; `say(text)` announces text to screen readers without showing it. */
export function liveRegion() {
  const element = h("p", { class: "visually-hidden", role: "status", "aria-live": "polite" });
  return { element, say: (text) => (element.textContent = text) };
}

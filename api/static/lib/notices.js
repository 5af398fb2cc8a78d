// Messages in the page: errors, empty states, and what a screen reader announces.

import { ApiError, login } from "./api.js";
import { fill, h } from "./dom.js";

/** A box that shows an error. `retry`, if given, is what its button does; on 401 it logs in first. */
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

/**
 * What a page shows if it can't be read. On 403 it says which pages this key may use.
 *
 * `what` is what the page shows, such as "the pool", and `page` its name.
 */
export function refusalBox(error, { what, page, retry }) {
  if (error.status !== 403) return errorBox(error, retry);
  return emptyBox(
    `This key may not see ${what}.`,
    h(
      "p",
      null,
      `The ${page} page needs a key with admin rights. `,
      h("a", { href: "#/compare" }, "Compare"),
      " and ",
      h("a", { href: "#/jobs" }, "Jobs"),
      " work with this one.",
    ),
  );
}

/**
 * Show a box, or nothing for null, as all that `parent` holds.
 *
 * An equal box stays, so that its button keeps the focus and its text isn't announced again.
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

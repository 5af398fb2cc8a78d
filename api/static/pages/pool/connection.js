// Shows whether the page is live, and the time since which it isn't.

import { h, setText } from "../../lib/dom.js";
import { clock } from "../../lib/format.js";

/** Build the banner, which is hidden while the page is live. */
export function connection(live) {
  const title = h("strong", null, "Reading the pool …");
  const detail = h("p", { class: "muted" });
  const element = h("div", { class: "notice", dataset: { state: "connecting" } }, title, detail);
  let lastPoolTime = null;

  function showLive(pool) {
    if (element.dataset.state === "lost") live.say("The page is live again.");
    lastPoolTime = pool.time;
    element.dataset.state = "live";
    element.className = "notice";
    element.hidden = true;
  }

  function showLost(error) {
    const heading = error.status === 0 ? "The front end can't be reached." : error.message;
    if (element.dataset.state !== "lost") live.say(heading);
    element.dataset.state = "lost";
    element.className = "notice notice-warn";
    element.hidden = false;
    setText(title, heading);
    const since = lastPoolTime === null ? "" : ` What you see is from ${clock(lastPoolTime)}.`;
    setText(detail, `The page tries again every second.${since}`);
  }

  return { element, showLive, showLost };
}

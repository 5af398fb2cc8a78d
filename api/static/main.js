// The shell: pages by the URL's hash, the theme, and the login.

import { hasKey, onKeyChange, onUnauthorized, setKey } from "./lib/api.js";
import { fill, h, setAttr } from "./lib/dom.js";
import { askForKey } from "./lib/login.js";
import { errorBox } from "./lib/notices.js";
import { nextTask } from "./lib/slices.js";
import { themeButton } from "./lib/theme_button.js";
import { mount as mountAdapters } from "./pages/adapters.js";
import { mount as mountChat } from "./pages/chat.js";
import { mount as mountCompare } from "./pages/compare.js";
import { mount as mountJobs } from "./pages/jobs.js";
import { mount as mountKeys } from "./pages/keys.js";
import { mount as mountPool } from "./pages/pool.js";
import { mount as mountUsage } from "./pages/usage.js";

const PAGES = {
  pool: { title: "Pool", mount: mountPool },
  adapters: { title: "Adapters", mount: mountAdapters },
  jobs: { title: "Jobs", mount: mountJobs },
  chat: { title: "Chat", mount: mountChat },
  compare: { title: "Compare", mount: mountCompare },
  usage: { title: "Usage", mount: mountUsage },
  keys: { title: "Keys", mount: mountKeys },
};
const main = document.getElementById("content");
let unmount = null;
let visit = 0;

/** Name of the page in the hash: `#/jobs/some-id?x=1` -> "jobs". The page itself reads the rest. */
function pageName() {
  const name = location.hash.replace(/^#\/?/, "").split(/[/?]/)[0];
  return Object.hasOwn(PAGES, name) ? name : "pool";
}

async function show() {
  const name = pageName();
  const own = ++visit;
  unmount?.();
  unmount = null;
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  const { title, mount } = PAGES[name];
  document.title = `${title} · Lorikeet`;
  for (const link of document.querySelectorAll(".tabs a")) {
    setAttr(link, "aria-current", link.hash === `#/${name}` ? "page" : null);
  }
  const root = h("div", { class: `page page-${name}` }, h("h1", { class: "visually-hidden" }, title));
  const body = h("div", { class: "page-body" });
  root.append(body);
  main.replaceChildren(root);
  main.dataset.page = name;
  try {
    await nextTask(); // so that running the script and showing the page are separate tasks
    if (own !== visit) return;
    const stop = await mount(body);
    if (own === visit) unmount = stop ?? null;
    else stop?.();
  } catch (error) {
    if (own !== visit) return;
    fill(body, errorBox(error, show));
  }
}

let shown = null;

/** Show the page that the hash names, unless it is shown already. */
function navigate() {
  const name = pageName();
  if (name === shown) return;
  const isFirst = shown === null;
  shown = name;
  show();
  if (!isFirst) main.focus({ preventScroll: true });
}

const keyButton = h("button", { type: "button", class: "button button-quiet", hidden: true }, "Log out");
keyButton.addEventListener("click", () => {
  setKey(null);
  show();
});

function showKey() {
  keyButton.hidden = !hasKey();
}

document.getElementById("skip-link").addEventListener("click", (event) => {
  // The hash belongs to the router.
  event.preventDefault();
  main.focus();
});
document.getElementById("top-actions").append(keyButton, themeButton());
onUnauthorized(askForKey);
onKeyChange(showKey);
showKey();
addEventListener("hashchange", navigate);
navigate();

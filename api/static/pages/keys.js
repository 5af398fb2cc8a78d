// The Keys page: stored API keys, which administrators create and revoke.

import { getJson, isServerOpen, sendJson, setKey } from "../lib/api.js";
import { confirmAction } from "../lib/confirm.js";
import { fill, h, keyed, setAttr, setText } from "../lib/dom.js";
import { count } from "../lib/format.js";
import { emptyBox, errorBox, liveRegion, refusalBox, showBox } from "../lib/notices.js";
import { retryLater } from "../lib/polling.js";
import { createDialog, secretDialog } from "./keys/create.js";

const HEADINGS = ["State", "Tenant", "Id", "Scopes", "Models", "Limits", "Created", "Expires", ""];
const TONES = { valid: "badge-good", expired: "badge-warn", revoked: "" };
const LIMITS = { requests_per_minute: "requests/min", tokens_per_minute: "tokens/min", requests_per_day: "requests/day", tokens_per_day: "tokens/day" };

/** Show the page in `root`. Returns the function that leaves it. */
export function mount(root) {
  const page = new KeysPage(root);
  page.refresh();
  return () => page.leaving.abort();
}

class KeysPage {
  constructor(root) {
    this.root = root;
    this.leaving = new AbortController();
    this.keys = null;
    this.body = h("tbody");
    this.problem = h("div");
    this.empty = h("div");
    this.done = h("p", { class: "done-text panel-note", role: "status" });
    this.live = liveRegion();
    this.number = h("span", { class: "muted" });
    this.withRevoked = h("input", { type: "checkbox", onchange: () => this.show() });
    this.createButton = h("button", { type: "button", class: "button button-primary", disabled: true, onclick: () => this.create() }, "Create a key …");
    this.openButton = h("button", { type: "button", class: "button button-danger", hidden: true, onclick: () => this.openPool() }, "Revoke all …");
    this.scroll = h(
      "div", { class: "table-scroll", tabindex: "0", role: "region", "aria-label": "Keys", hidden: true },
      h("table", { class: "table keys cards" }, h("thead", null, h("tr", null, HEADINGS.map(heading))), this.body),
    );
    const head = h("div", { class: "panel-head" }, h("h2", null, "API keys"), this.number, h("span", { class: "spacer" }), h("label", { class: "check" }, this.withRevoked, "Show revoked and expired keys"), this.openButton, this.createButton);
    fill(root, this.problem, h("section", { class: "panel" }, head, this.done, this.empty, this.scroll), this.live.element);
  }

  async refresh() {
    const { signal } = this.leaving;
    try {
      this.keys = (await getJson("v1/keys", { signal })).data;
      showBox(this.problem, null);
      this.createButton.disabled = false;
      this.show();
    } catch (error) {
      if (signal.aborted) return;
      const box = refusalBox(error, { what: "the keys", page: "Keys", retry: () => this.refresh() });
      if (error.status === 403) fill(this.root, box);
      else showBox(this.problem, box);
      retryLater(() => this.refresh(), error, signal);
    }
  }

  show() {
    const valid = this.keys.filter(({ state }) => state === "valid");
    const shown = this.withRevoked.checked ? this.keys : valid;
    setText(this.number, `${count(valid.length)} valid`);
    keyed(this.body, shown, { keyOf: ({ id }) => id, create: (key) => this.row(key), update: showRow });
    this.scroll.hidden = shown.length === 0;
    this.openButton.hidden = valid.length === 0;
    fill(this.empty, valid.length === 0 && emptyBox("No valid key is stored", h("p", null, emptyText())));
  }

  row({ id, tenant }) {
    const revoke = h("button", { type: "button", class: "button button-small button-danger", "aria-label": `Revoke key ${id} of ${tenant}`, onclick: () => this.revoke(id, tenant) }, "Revoke");
    const cells = HEADINGS.slice(1, -1).map((label) => h("td", { "data-label": label, class: label === "Id" ? "mono" : null }));
    return h("tr", null, h("td", { "data-label": "State" }, h("span")), cells, h("td", { class: "wide" }, revoke));
  }

  async create() {
    const isFirst = isServerOpen();
    const key = await createDialog({ isFirst });
    if (key === null) return;
    setText(this.done, `Key ${key.id} of ${key.tenant} is created.`);
    await secretDialog(key, { isFirst });
    await this.refresh();
  }

  async revoke(id, tenant) {
    const text = "Requests with this key are refused from now on. This can't be undone.";
    if (!(await confirmAction({ title: `Revoke the key ${id} of ${tenant}?`, text, action: "Revoke" }))) return;
    await this.change(async () => {
      await sendJson("DELETE", `v1/keys/${encodeURIComponent(id)}`);
      return `Key ${id} of ${tenant} is revoked.`;
    });
  }

  async openPool() {
    const text = "The server then answers requests without a key again, unless its settings ask for one. Revoked keys can't be used again.";
    if (!(await confirmAction({ title: "Revoke all keys and open the pool?", text, action: "Revoke all" }))) return;
    await this.change(async () => {
      await sendJson("DELETE", "v1/keys?opens_pool=true");
      setKey(null);
      return "All stored keys are revoked.";
    });
  }

  /** Change keys, and show what was done. */
  async change(action) {
    try {
      setText(this.done, await action());
      this.createButton.focus(); // the button that had the focus may disappear
    } catch (error) {
      showBox(this.problem, errorBox(error));
      return;
    }
    await this.refresh();
  }
}

function heading(text) {
  return h("th", { scope: "col" }, text || h("span", { class: "visually-hidden" }, "Actions"));
}

function showRow(row, key) {
  const badge = row.firstElementChild.firstElementChild;
  setText(badge, key.state);
  setAttr(badge, "class", `badge ${TONES[key.state]}`);
  const texts = [key.tenant, key.id, key.scopes.join(", "), key.models.join(", "), limitsOf(key.limits), day(key.created_at), day(key.expires_at) || "never"];
  texts.forEach((text, index) => setText(row.children[index + 1], text));
  row.lastElementChild.firstElementChild.hidden = key.state !== "valid";
}

function limitsOf(limits) {
  const set = Object.entries(LIMITS).filter(([name]) => limits[name] !== null);
  return set.map(([name, unit]) => `${count(limits[name])} ${unit}`).join(", ") || "none";
}

/** The local day of a Unix time in seconds; "" for null. */
function day(time) {
  return time === null ? "" : new Date(time * 1000).toLocaleDateString("en-CA");
}

function emptyText() {
  if (isServerOpen()) return "This server answers everybody who can reach it. Once it has a key, it refuses requests without one.";
  return "The key of this tab is one of the server's setting api_keys.";
}

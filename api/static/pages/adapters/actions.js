// Actions of the buttons in an adapter's row.

import { sendJson } from "../../lib/api.js";
import { confirmAction } from "../../lib/confirm.js";
import { fill, h } from "../../lib/dom.js";
import { plural } from "../../lib/format.js";
import { errorBox } from "../../lib/notices.js";
import { chooseModels } from "../compare/store.js";
import { candidateDialog, shareText } from "./candidate.js";
import { pinDialog } from "./pin.js";
import { versionsOf } from "./row.js";

const MAX_COMPARED = 4;
const FLIP = { keep: "Cancel", tone: "button-primary" }; // for questions about changing the current version

/** Actions of rows; each takes the AdapterRow whose button was pressed. */
export class RowActions {
  /** `page` has `load(options)`, `refresh()`, `say(text)` and `focusSearch()`. */
  constructor(page) {
    this.page = page;
  }

  opened() {
    this.page.refresh();
  }

  replace(row) {
    this.page.load({ name: row.adapter.id });
  }

  async rollBack(row, query = "") {
    await this.run(row, async () => {
      const { version } = await sendJson("POST", `${pathOf(row)}/rollback${query}`);
      return usedFrom(row, version);
    });
  }

  async makeCurrent(row, version) {
    const { id } = row.adapter;
    const text = `New requests for ${id} use this version at once. Waiting and running ones keep theirs.`;
    if (!(await confirmed(row, { title: `Make ${version} current?`, text, action: "Make current", ...FLIP }))) return;
    await this.rollBack(row, `?${new URLSearchParams({ version })}`);
  }

  /** Ask for a candidate, or for another share of the present one. */
  async tryOut(row) {
    const { id } = row.adapter;
    await this.run(row, async () => {
      const changed = await candidateDialog(row.adapter, (body) => sendJson("PUT", `${pathOf(row)}/candidate`, body));
      const candidate = changed?.candidate;
      return candidate ? `${candidate.version} is the candidate of ${id}: ${shareText(candidate)}.` : null;
    });
  }

  async promote(row) {
    const { id, candidate } = row.adapter;
    const text = `New requests for ${id} use this version at once. You can roll back to the current one.`;
    if (!(await confirmed(row, { title: `Promote ${candidate.version}?`, text, action: "Promote", ...FLIP }))) return;
    await this.run(row, async () => {
      const { version } = await sendJson("POST", `${pathOf(row)}/candidate/promote?${only(candidate)}`);
      return usedFrom(row, version);
    });
  }

  async drop(row) {
    const { candidate } = row.adapter;
    const text = "Its trial ends, and what was compared is deleted.";
    if (!(await confirmed(row, { title: `Drop ${candidate.version}?`, text, action: "Drop" }))) return;
    await this.run(row, async () => {
      const { version } = await sendJson("DELETE", `${pathOf(row)}/candidate?${only(candidate)}`);
      return `${candidate.version} is no longer tried out. ${version} answers all requests.`;
    });
  }

  async pin(row) {
    await this.run(row, async () => {
      const send = (body) => sendJson(body ? "PUT" : "DELETE", `${pathOf(row)}/pin`, body);
      return pinText(await pinDialog(row.adapter, send));
    });
  }

  /** Pause the adapter, or resume it. */
  async pause(row) {
    const { id, is_paused: isPaused } = row.adapter;
    await this.run(row, async () => {
      await sendJson("POST", `${pathOf(row)}/${isPaused ? "resume" : "pause"}`);
      return isPaused ? `Requests for ${id} are answered again.` : `${id} is paused. Requests for it wait until you resume it.`;
    });
  }

  async unload(row) {
    const { id } = row.adapter;
    const text = `New requests for ${id} are refused at once. Waiting and running ones are still answered.`;
    if (!(await confirmAction({ title: `Unload ${id}?`, text, action: "Unload" }))) return;
    await this.run(row, async () => {
      await sendJson("DELETE", pathOf(row));
      this.page.focusSearch();
      return `${id} is unloaded.`;
    });
  }

  compare({ adapter }) {
    chooseModels(versionsOf(adapter).slice(0, MAX_COMPARED).map(({ version }) => version));
    location.hash = "#/compare";
  }

  /** Run an action of a row, and show its message below the row's buttons. null: there is no message. */
  async run(row, action) {
    try {
      const text = await action();
      if (text === null) return;
      fill(row.message, h("p", { class: "done-text" }, text));
      this.page.say(text);
    } catch (error) {
      fill(row.message, errorBox(error));
    }
    await this.page.refresh();
  }
}

/** Ask about a version, and move the focus away from its button, which disappears. */
async function confirmed(row, question) {
  if (!(await confirmAction(question))) return false;
  row.toggle.focus();
  return true;
}

function usedFrom({ adapter }, version) {
  return `New requests for ${adapter.id} use ${version}.`;
}

function pinText(pin) {
  if (pin === null) return null;
  const { id, min_replicas: num } = pin;
  return num === 0 ? `${id} is no longer pinned.` : `${id} is pinned. At least ${plural(num, "worker")} will keep it in memory, if the pool has that many.`;
}

/** A query that makes the server change nothing if another version has become the candidate. */
function only({ version }) {
  return new URLSearchParams({ version });
}

/** Path of a row's adapter. Slashes of its name stay slashes. */
export function pathOf({ adapter }) {
  return `v1/adapters/${adapter.id.split("/").map(encodeURIComponent).join("/")}`;
}

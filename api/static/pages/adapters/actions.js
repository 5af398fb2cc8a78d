// What the buttons of an adapter's row do.

import { getJson, sendJson } from "../../lib/api.js";
import { confirmAction } from "../../lib/confirm.js";
import { fill, h } from "../../lib/dom.js";
import { errorBox } from "../../lib/notices.js";
import { chooseModels } from "../compare/store.js";
import { candidateDialog, shareText } from "./candidate.js";
import { pinDialog } from "./pin.js";
import { versionsOf } from "./row.js";

const MAX_COMPARED = 4;

/** Actions of rows; each takes the AdapterRow whose button was pressed. */
export class RowActions {
  /** `page` has `load(options)`, `refresh()`, `say(text)` and `focusSearch()`. */
  constructor(page) {
    this.page = page;
  }

  opened(row) {
    this.readAgreement(row);
  }

  /** Read how the answers of an open row's shadow compare. */
  async readAgreement(row, signal) {
    if (!row.element.isConnected || !row.showsShadow) return;
    try {
      row.showAgreement(await getJson(`${pathOf(row)}/candidate`, { signal }));
    } catch {
      // The trial has ended meanwhile, or the page's next refresh says what is wrong.
    }
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
    const labels = { action: "Make current", keep: "Cancel", tone: "button-primary" };
    if (!(await confirmAction({ title: `Make ${version} current?`, text, ...labels }))) return;
    row.toggle.focus(); // the version's button disappears
    await this.rollBack(row, `?${new URLSearchParams({ version })}`);
  }

  /** Ask for a candidate, or for another share of the present one. */
  async tryOut(row) {
    const { id } = row.adapter;
    const path = `${pathOf(row)}/candidate`;
    const changed = await candidateDialog(row.adapter, (body) => sendJson("PUT", path, body));
    if (changed === null) return;
    const { version, ...share } = changed.candidate;
    await this.run(row, async () => `${version} is the candidate of ${id}: ${shareText(share)}.`);
  }

  async promote(row) {
    const { id, candidate } = row.adapter;
    const text = `New requests for ${id} use this version at once. The current one can be rolled back to.`;
    const labels = { action: "Promote", keep: "Cancel", tone: "button-primary" };
    if (!(await confirmAction({ title: `Promote ${candidate.version}?`, text, ...labels }))) return;
    row.toggle.focus();
    await this.run(row, async () => {
      const query = new URLSearchParams({ version: candidate.version });
      const { version } = await sendJson("POST", `${pathOf(row)}/candidate/promote?${query}`);
      return usedFrom(row, version);
    });
  }

  async drop(row) {
    row.toggle.focus(); // the version's buttons disappear
    await this.run(row, async () => {
      const adapter = await sendJson("DELETE", `${pathOf(row)}/candidate`);
      row.update(adapter);
      return usedFrom(row, adapter.version);
    });
  }

  async pin(row) {
    const path = `${pathOf(row)}/pin`;
    const changed = await pinDialog(row.adapter, (body) => sendJson(body ? "PUT" : "DELETE", path, body));
    if (changed === null) return;
    await this.run(row, async () => pinText(changed));
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

  /** Run an action of a row, and say how it ended below its buttons. */
  async run(row, action) {
    try {
      const text = await action();
      fill(row.message, h("p", { class: "done-text" }, text));
      this.page.say(text);
    } catch (error) {
      fill(row.message, errorBox(error));
    }
    await this.page.refresh();
  }
}

function usedFrom({ adapter }, version) {
  return `New requests for ${adapter.id} use ${version}.`;
}

function pinText({ id, min_replicas: num }) {
  if (num === 0) return `${id} is no longer pinned.`;
  return num === 1 ? `A worker keeps ${id} in memory.` : `${num} workers keep ${id} in memory.`;
}

/** Path of a row's adapter. Slashes of its name stay slashes. */
function pathOf({ adapter }) {
  return `v1/adapters/${adapter.id.split("/").map(encodeURIComponent).join("/")}`;
}

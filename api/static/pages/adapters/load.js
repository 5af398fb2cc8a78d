// The dialog that checks, loads and replaces an adapter, from a folder, the hub, or files.

import { ApiError, getJson, request, sendJson } from "../../lib/api.js";
import { fill, h, setText } from "../../lib/dom.js";
import { bytes, percent } from "../../lib/format.js";
import { errorBox, problemBox } from "../../lib/notices.js";
import { radio } from "../../lib/radio.js";
import { findingsBox } from "./findings.js";
import { sourceField } from "./source.js";
import { CONFIG, WEIGHTS, adapterFiles, droppedFiles, readConfig, upload } from "./upload.js";

/**
 * Show the dialog. With `name`, it replaces that adapter. With `files`, it begins with these.
 *
 * Resolves to the loaded adapter's name, or to null if the dialog was closed.
 */
export function loadDialog({ name = null, files = null }) {
  return new Promise((resolve) => new LoadDialog(name, files, resolve));
}

class LoadDialog {
  constructor(name, files, resolve) {
    this.chosen = null;
    this.loaded = null;
    this.closing = new AbortController();
    this.name = h("input", { id: "load-name", type: "text", required: true, value: name ?? "", maxlength: "128", autocomplete: "off", spellcheck: "false", readonly: name !== null });
    this.source = sourceField({ id: "load-path", placeholder: "/adapters/sql-v2 or acme/sql-lora" });
    this.path = this.source.input;
    this.replace = h("input", { id: "load-replace", type: "checkbox", checked: name !== null });
    this.byPath = this.choice("path", "Folder or hub id");
    this.byFiles = this.choice("files", "Files of this computer");
    this.picker = h("input", { id: "load-files", type: "file", multiple: true, onchange: () => this.choose([...this.picker.files]) });
    this.summary = h("div", { class: "load-chosen", role: "status" });
    this.checkButton = h("button", { type: "button", class: "button", onclick: () => this.check() }, "Check");
    this.loadButton = h("button", { type: "submit", class: "button button-primary" }, name === null ? "Load" : "Replace");
    this.progress = h("progress", { max: "1", value: 0, hidden: true, "aria-label": "Sent" });
    this.state = h("p", { class: "muted", role: "status" });
    this.outcome = h("div");
    this.filesPart = this.dropZone();
    this.dialog = this.build(name);
    this.dialog.addEventListener("close", () => {
      this.closing.abort();
      this.dialog.remove();
      resolve(this.loaded);
    });
    document.body.append(this.dialog);
    (files ? this.byFiles : this.byPath).input.checked = true;
    this.showSource();
    this.dialog.showModal();
    (name === null ? this.name : this.path).focus();
    if (files) this.choose(files);
  }

  build(name) {
    const form = h(
      "form",
      null,
      h("h2", { id: "load-title" }, name === null ? "Load an adapter" : `Replace ${name}`),
      h("div", { class: "field" }, h("label", { for: "load-name" }, "Name"), this.name),
      h("fieldset", { class: "choice" }, h("legend", { class: "visually-hidden" }, "Where the adapter is"), this.byPath.element, this.byFiles.element),
      this.source.element, this.filesPart,
      h("label", { class: "check", hidden: name !== null }, this.replace, "Replace the adapter if the name is taken"),
      this.progress, this.state, this.outcome,
      h(
        "div", { class: "dialog-actions" },
        h("button", { type: "button", class: "button button-quiet", onclick: () => this.dialog.close() }, "Close"),
        this.checkButton, this.loadButton,
      ),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.load();
    });
    return h("dialog", { class: "dialog dialog-load", "aria-labelledby": "load-title" }, form);
  }

  choice(value, label) {
    return radio({ name: "load-source", value, onchange: () => this.showSource() }, label);
  }

  dropZone() {
    const zone = h(
      "div",
      {
        class: "drop-zone",
        ondragover: (event) => event.preventDefault(),
        ondrop: async (event) => {
          event.preventDefault();
          event.stopPropagation();
          this.choose(await droppedFiles(event.dataTransfer));
        },
      },
      h("label", { for: "load-files" }, `Drop the adapter's folder here, or choose ${CONFIG} and ${WEIGHTS}`),
      this.picker, this.summary,
    );
    return zone;
  }

  get isByFiles() {
    return this.byFiles.input.checked;
  }

  showSource() {
    this.source.element.hidden = this.isByFiles;
    this.filesPart.hidden = !this.isByFiles;
    this.checkButton.hidden = this.isByFiles;
    this.path.required = !this.isByFiles;
    fill(this.outcome);
  }

  /** Check the files in the browser, so that the user sees a wrong choice before anything is sent. */
  async choose(files) {
    this.chosen = null;
    fill(this.summary);
    try {
      const chosen = adapterFiles(files);
      const config = await readConfig(chosen.config);
      this.chosen = chosen;
      fill(this.summary, summaryOf(chosen, config));
      fill(this.outcome);
    } catch (error) {
      fill(this.outcome, problem(error));
    }
  }

  async check() {
    if (!this.path.reportValidity()) return;
    const body = { lora_path: this.path.value.trim() };
    if (this.name.value.trim()) body.lora_name = this.name.value.trim();
    await this.act("A worker reads and checks the files …", async () => {
      fill(this.outcome, findingsBox(await sendJson("POST", "v1/adapters/validate", body, { signal: this.closing.signal })));
    });
  }

  async load() {
    const name = this.name.value.trim();
    if (this.isByFiles && !this.chosen) {
      fill(this.outcome, problem(new Error("Choose the adapter's files first.")));
      return;
    }
    await this.act("A worker reads and checks the files …", async () => {
      await (this.isByFiles ? this.send(name) : this.loadPath(name));
      this.loaded = name;
      this.dialog.close();
    });
  }

  async loadPath(name) {
    const body = { lora_name: name, lora_path: this.path.value.trim(), load_inplace: this.replace.checked };
    const reply = await request("v1/load_lora_adapter", {
      method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" }, signal: this.closing.signal,
    });
    await reply.text();
  }

  async send(name) {
    if (!this.replace.checked && (await isTaken(name, this.closing.signal))) {
      throw new Error(`The name ${name} is taken. Choose another name, or replace the adapter.`);
    }
    this.progress.hidden = false;
    await upload(name, this.chosen, { signal: this.closing.signal, onProgress: (part) => this.showProgress(part) });
  }

  showProgress(part) {
    this.progress.value = part;
    setText(this.state, part < 1 ? `Sent ${percent(part)}` : "Sent; a worker checks the files …");
  }

  /** Run `action` with the buttons disabled, and show its full error message. */
  async act(text, action) {
    const buttons = [this.checkButton, this.loadButton];
    for (const button of buttons) button.disabled = true;
    setText(this.state, text);
    fill(this.outcome);
    try {
      await action();
    } catch (error) {
      if (!this.closing.signal.aborted) fill(this.outcome, problem(error));
    }
    setText(this.state, "");
    this.progress.hidden = true;
    for (const button of buttons) button.disabled = false;
  }
}

async function isTaken(name, signal) {
  const { data } = await getJson("v1/adapters", { signal });
  return data.some(({ id }) => id === name);
}

function problem(error) {
  return error instanceof ApiError ? errorBox(error) : problemBox(error.message);
}

function summaryOf({ weights, config }, read) {
  const modules = read?.target_modules;
  const facts = [
    [weights.name, bytes(weights.size)],
    [CONFIG, config ? bytes(config.size) : "not chosen: the safetensors file must contain it"],
    ["Rank", read?.r],
    ["Modules", Array.isArray(modules) ? [...modules].sort().join(", ") : modules],
    ["Trained on", read?.base_model_name_or_path],
  ];
  const rows = facts.filter(([, value]) => value !== undefined && value !== null && value !== "");
  return h("dl", { class: "findings" }, rows.map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, String(value)))));
}

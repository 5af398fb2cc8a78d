// The dialogs that create an API key and show its secret once.

import { sendJson, setKey } from "../../lib/api.js";
import { copyText } from "../../lib/clipboard.js";
import { h } from "../../lib/dom.js";
import { formDialog } from "../../lib/form_dialog.js";

const SCOPES = {
  inference: "answers, jobs and usage of its tenant",
  adapters: "loading, replacing and pausing adapters and workers",
  metrics: "metrics",
  admin: "everything that administrators see and do, keys included",
};
const LIMITS = { requests_per_minute: "Requests per minute", tokens_per_minute: "Tokens per minute", requests_per_day: "Requests per day", tokens_per_day: "Tokens per day" };

/**
 * Ask for a key's tenant and rights, and create it. Resolves to the key with its secret, or to null.
 *
 * `isFirst` is true while the server answers requests without a key.
 */
export function createDialog({ isFirst }) {
  const tenant = h("input", { id: "key-tenant", type: "text", required: true, value: isFirst ? "admin" : "", autocomplete: "off", spellcheck: "false" });
  const scopes = Object.entries(SCOPES).map(([name, text]) => ({ name, text, box: h("input", { type: "checkbox", checked: isFirst || name === "inference" }) }));
  const models = h("input", { id: "key-models", type: "text", placeholder: "all models", "aria-describedby": "key-models-hint", autocomplete: "off", spellcheck: "false" });
  const expires = h("input", { id: "key-expires", type: "number", min: "1", step: "1", placeholder: "never" });
  const limits = Object.entries(LIMITS).map(([name, label]) => ({ name, label, input: h("input", { id: `key-${name}`, type: "number", min: "1", step: "1", placeholder: "no limit" }) }));
  const allowLockout = h("input", { type: "checkbox" });
  const mayManage = () => scopes.find(({ name }) => name === "admin").box.checked;
  const lockout = h("label", { class: "check", hidden: true }, allowLockout, "Create it although nobody could then manage keys over the API");
  const showLockout = () => (lockout.hidden = !isFirst || mayManage());
  const body = () => {
    const set = limits.filter(({ input }) => input.value !== "").map(({ name, input }) => [name, input.valueAsNumber]);
    const patterns = models.value.split(/[\s,]+/).filter(Boolean);
    return {
      tenant: tenant.value.trim(),
      scopes: scopes.filter(({ box }) => box.checked).map(({ name }) => name),
      ...(patterns.length && { models: patterns }),
      ...(set.length && { limits: Object.fromEntries(set) }),
      ...(expires.value !== "" && { expires_days: expires.valueAsNumber }),
      ...(isFirst && allowLockout.checked && { allow_lockout: true }),
    };
  };
  return formDialog({
    title: isFirst ? "Create the first key" : "Create a key",
    fields: [
      isFirst && warning(),
      field("Tenant", tenant),
      h("fieldset", { class: "choice choice-list", onchange: showLockout }, h("legend", null, "Scopes"), scopes.map(({ name, text, box }) => h("label", { class: "check" }, box, h("span", null, h("b", null, name), ": ", text)))),
      lockout,
      field("Models", models, h("p", { id: "key-models-hint", class: "muted" }, "Names or patterns such as sql-*, separated by commas.")),
      h("details", null, h("summary", null, "Limits and expiry"), h("div", { class: "key-limits" }, limits.map(({ label, input }) => field(label, input)), field("Expires after days", expires))),
    ],
    submit: { label: "Create", tone: "button-primary", run: () => sendJson("POST", "v1/keys", body()) },
    busy: "The server creates the key …",
  });
}

function warning() {
  return h(
    "div", { class: "notice notice-warn" },
    h("strong", null, "From this key on, the server refuses requests without a key."),
    h("p", null, "Clients that send none get the error 401. Give the key to them, or create more keys for them. Keep the scope admin on this key, because you need it to create others."),
  );
}

/** Show a new key's secret. Resolves once the dialog is closed. `isFirst`: this tab uses the key from now on. */
export function secretDialog({ id, secret, scopes }, { isFirst }) {
  return new Promise((resolve) => {
    const isUsed = isFirst && scopes.includes("admin");
    const text = h("input", { id: "key-secret", type: "text", readonly: true, value: secret, class: "mono", "aria-describedby": "key-secret-hint", onfocus: () => text.select() });
    const copied = h("span", { class: "muted", role: "status" });
    const dialog = h(
      "dialog", { class: "dialog dialog-form", "aria-labelledby": "key-secret-title" },
      h(
        "form", { method: "dialog" },
        h("h2", { id: "key-secret-title" }, `Key ${id}`),
        h("p", { id: "key-secret-hint" }, `The key is shown only now, because the server keeps its hash alone.${isUsed ? " This tab uses it from now on." : ""}`),
        h("label", { for: "key-secret", class: "visually-hidden" }, "Secret"), text,
        h("div", { class: "dialog-actions" }, copied, h("button", { type: "button", class: "button", onclick: () => copyText(secret, { said: copied, select: () => text.focus() }) }, "Copy"), h("button", { type: "submit", class: "button button-primary" }, "I have kept it")),
      ),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve();
    });
    if (isUsed) setKey(secret);
    document.body.append(dialog);
    dialog.showModal();
  });
}

function field(label, input, hint = null) {
  return h("div", { class: "field" }, h("label", { for: input.id }, label), input, hint);
}

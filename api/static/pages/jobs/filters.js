// The filters of the Jobs page, which are kept in the URL's hash.

import { h } from "../../lib/dom.js";
import { hashOf, hashQuery, replaceHash } from "../../lib/location.js";
import { STATES } from "./list.js";

const AGES = [["", "any time"], ["60", "1 min"], ["600", "10 min"], ["3600", "1 hour"], ["86400", "1 day"]];
export const ALL_TENANTS = "*";

/** The fields. `onChange()` is called after each change by the user. */
export class Filters {
  constructor(onChange) {
    const changed = () => {
      this.write();
      onChange();
    };
    this.states = STATES.map((state) => ({ state, box: h("input", { type: "checkbox", onchange: changed }) }));
    this.model = textField({ id: "job-model", label: "Model", placeholder: "Any model", list: "job-models", onchange: changed });
    this.errorCode = textField({ id: "job-error", label: "Error code", placeholder: "Any error", onchange: changed });
    this.tenant = textField({ id: "job-tenant", label: "Tenant", placeholder: "All tenants", onchange: changed });
    this.minAge = ageField("Older than", changed);
    this.maxAge = ageField("Newer than", changed);
    this.models = h("datalist", { id: "job-models" });
    this.tenantLabel = h("label", { class: "filter", hidden: true }, "Tenant", this.tenant);
    this.isPoolWide = false;
    this.element = h(
      "div", { class: "job-filters" },
      h("fieldset", { class: "chips" }, h("legend", { class: "visually-hidden" }, "States"), this.states.map(({ state, box }) => h("label", { class: "chip" }, box, state))),
      h("label", { class: "filter" }, "Model", this.model), this.models,
      this.tenantLabel,
      h("label", { class: "filter" }, "Error code", this.errorCode),
      h("label", { class: "filter" }, "Older than", this.minAge),
      h("label", { class: "filter" }, "Newer than", this.maxAge),
    );
  }

  /** Let the user choose a tenant, and show the jobs of all tenants until a tenant is chosen. */
  allowTenants() {
    this.isPoolWide = true;
    this.tenantLabel.hidden = false;
  }

  suggest(models) {
    this.models.replaceChildren(...models.map((value) => h("option", { value })));
  }

  /** Values as the body of POST /v1/jobs/cancel has them. Filters that aren't used are left out. */
  get values() {
    const states = this.states.filter(({ box }) => box.checked).map(({ state }) => state);
    const values = {
      state: states.length ? states : "",
      model: this.model.value.trim(),
      tenant: this.isPoolWide ? this.tenant.value.trim() || ALL_TENANTS : "",
      error_code: this.errorCode.value.trim(),
      min_age_s: this.minAge.value && Number(this.minAge.value),
      max_age_s: this.maxAge.value && Number(this.maxAge.value),
    };
    return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== ""));
  }

  /** Values as the query of GET /v1/jobs and of the hash has them. */
  get query() {
    const { state, ...others } = this.values;
    return state ? { state: state.join(","), ...others } : others;
  }

  /** The filters as a sentence. */
  get text() {
    const words = Object.entries(this.query).map(([name, value]) => `${name} ${value}`);
    return words.length ? `Jobs with ${words.join(", ")}.` : "All jobs of your tenant.";
  }

  /** Take the values from the hash. */
  read() {
    const query = hashQuery();
    const states = (query.get("state") ?? "").split(",");
    for (const { state, box } of this.states) box.checked = states.includes(state);
    this.model.value = query.get("model") ?? "";
    this.errorCode.value = query.get("error_code") ?? "";
    this.tenant.value = query.get("tenant")?.replace(ALL_TENANTS, "") ?? "";
    chooseAge(this.minAge, query.get("min_age_s"));
    chooseAge(this.maxAge, query.get("max_age_s"));
  }

  /** The hash of the page with these filters, and with the dialog of a job if `id` is given. */
  hash(id = "") {
    const query = this.query;
    if (query.tenant === ALL_TENANTS) delete query.tenant;
    return hashOf("jobs", { path: id, query });
  }

  write() {
    replaceHash(this.hash());
  }
}

function textField({ label, ...props }) {
  return h("input", { type: "search", "aria-label": label, autocomplete: "off", spellcheck: "false", ...props });
}

function ageField(label, onchange) {
  return h("select", { "aria-label": label, onchange }, AGES.map(([value, text]) => h("option", { value }, text)));
}

/** Select an age in seconds. Links may have others than the field offers. */
function chooseAge(field, seconds) {
  const value = /^\d+(\.\d+)?$/.test(seconds ?? "") ? seconds : "";
  if (![...field.options].some((option) => option.value === value)) field.append(h("option", { value }, `${value} s`));
  field.value = value;
}

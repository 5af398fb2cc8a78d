// What the Compare page keeps for a reloaded or reopened tab.
//
// The tab's storage survives a reload. Without an API key, the browser's storage has a copy for a tab
// that is opened anew. With a key, prompts must not outlive it, and the key ends with the tab.

import { hasKey } from "../../lib/api.js";

const FORM = "lorikeet-compare-form";
const RUN = "lorikeet-compare-run";

/** The form's values, or null. */
export function loadForm() {
  return load(FORM);
}

export function saveForm(form) {
  save(FORM, form);
}

/** States that `saveRuns` kept, or null. */
export function loadRuns() {
  return load(RUN);
}

/**
 * Keep the columns' states, of which those that never ran are null. If they are too large, keep what
 * is needed to follow the jobs from their starts.
 */
export function saveRuns(states) {
  const slim = () => states.map((state) => state && { ...state, text: "", reasoning: "", tokens: [], lastId: "" });
  if (!save(RUN, states)) save(RUN, slim());
}

/** Forget form and runs. */
export function forget() {
  for (const storage of [sessionStorage, localStorage]) [FORM, RUN].forEach((name) => storage.removeItem(name));
}

/** Let the Compare page start with these models. */
export function chooseModels(models) {
  saveForm({ ...loadForm(), models });
}

function load(name) {
  const text = sessionStorage.getItem(name) ?? (hasKey() ? null : localStorage.getItem(name));
  return text === null ? null : JSON.parse(text);
}

function save(name, value) {
  const text = JSON.stringify(value);
  try {
    sessionStorage.setItem(name, text);
    if (!hasKey()) localStorage.setItem(name, text);
    return true;
  } catch {
    return false; // the quota is used up
  }
}

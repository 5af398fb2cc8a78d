// Data that the Compare page keeps for a reloaded or reopened tab.
//
// The tab's storage survives a reload. On a server without keys, the browser's storage has a copy for
// the next tab. Only one tab at a time owns the copy, because each open tab has its own runs.

import { hasKey, isServerOpen, keylessName } from "../../lib/api.js";
import { cancel, fromStart, hasEnded } from "./run.js";

const FORM = "lorikeet-compare-form";
const RUN = "lorikeet-compare-run";
const LOCK = "lorikeet-compare";
const LOCK_WAIT_MS = 500;
let isOwner = false;
let owning = null;

/** Prepare to load. A new tab waits for the browser's copy, but only briefly if another tab owns it. */
export async function openStore() {
  owning ??= own();
  if (hasKey() || hasOwnForm()) return;
  await Promise.race([owning, new Promise((resolve) => setTimeout(resolve, LOCK_WAIT_MS))]);
}

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
 * Keep the columns' states. The state of a column that never ran is null. If the states are too large,
 * the tokens of ended runs are dropped first, and then all answers. `follow` reads dropped answers again.
 */
export function saveRuns(states) {
  const smaller = (state) => (hasEnded(state) ? { ...state, tokens: [] } : fromStart(state));
  for (const change of [(state) => state, smaller, fromStart]) {
    if (save(RUN, states.map((state) => state && change(state)))) return;
  }
}

/** Forget form and runs. */
export function forget() {
  for (const name of [FORM, RUN]) {
    sessionStorage.removeItem(name);
    if (isOwner) localStorage.removeItem(keylessName(name));
  }
}

/** Make the Compare page start with these models. Cancels runs of other models, which it can't show. */
export function chooseModels(models) {
  const runs = (loadRuns() ?? []).filter((run) => run !== null);
  const isChosen = ({ body }) => models.includes(body.model);
  for (const run of runs) if (!isChosen(run)) cancel(run).catch(() => {}); // otherwise, the job ends by itself
  saveForm({ ...loadForm(), models });
  saveRuns(models.map((model) => runs.find(({ body }) => body.model === model) ?? null));
}

/** Own the browser's copy until this page is left. Resolves once no other tab owns it. */
function own() {
  return new Promise((resolve) => {
    const start = () => {
      isOwner = true;
      resolve();
    };
    // Browsers have locks on https and localhost only. Elsewhere, all tabs share the copy.
    if (!navigator.locks) return start();
    navigator.locks.request(LOCK, () => {
      start();
      return new Promise(() => {});
    });
  });
}

function hasOwnForm() {
  return sessionStorage.getItem(FORM) !== null;
}

function load(name) {
  const isCopy = isOwner && !hasKey() && !hasOwnForm();
  const text = isCopy ? localStorage.getItem(keylessName(name)) : sessionStorage.getItem(name);
  return text === null ? null : JSON.parse(text);
}

function save(name, value) {
  const text = JSON.stringify(value);
  try {
    sessionStorage.setItem(name, text);
    if (isOwner && isServerOpen()) localStorage.setItem(keylessName(name), text);
    return true;
  } catch {
    return false; // the quota is used up
  }
}

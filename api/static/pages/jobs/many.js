// Cancels or retries all jobs that match the filters, after a preview of how many.

import { sendJson } from "../../lib/api.js";
import { h } from "../../lib/dom.js";
import { count, plural } from "../../lib/format.js";
import { formDialog } from "../../lib/form_dialog.js";

const ACTIONS = {
  cancel: {
    title: "Cancel jobs", label: "Cancel jobs", tone: "button-danger", done: "cancelled",
    effect: 'Their requests end with the error "cancelled".',
  },
  retry: {
    title: "Retry jobs", label: "Retry jobs", tone: "button-primary", done: "retried",
    effect: "Each becomes one new job on its model's current version.",
  },
};

/**
 * Ask the server how many jobs match, and act on them once the user agrees.
 *
 * `name` is "cancel" or "retry", `filters` the values of `Filters`, and `text` describes them. Resolves
 * to a sentence about what was done, or to null if nothing was.
 */
export async function actOnMany(name, filters, text) {
  const action = ACTIONS[name];
  const send = (isPreview) => sendJson("POST", `v1/jobs/${name}`, { ...filters, dry_run: isPreview });
  const preview = await send(true);
  const num = preview.matched;
  const note = h("p", { class: "many-count" }, h("b", null, num ? `${count(num)}${preview.has_more ? " or more" : ""}` : "No"), ` ${num === 1 ? "job" : "jobs"} will be ${action.done}.`);
  const result = await formDialog({
    title: action.title,
    fields: [h("p", null, text), note, h("p", { class: "muted" }, action.effect)],
    submit: { label: num ? `${action.label}: ${num}` : action.label, tone: action.tone, isDisabled: num === 0, run: () => send(false) },
    busy: "The server works …",
  });
  return result && sentence(result, action);
}

function sentence({ done, skipped, has_more: hasMore, reason }, action) {
  const parts = [`${plural(done, "job")} ${action.done}`, skipped > 0 && `${plural(skipped, "job")} skipped`].filter(Boolean);
  return [`${parts.join(", ")}.`, reason && `The server stopped early: ${reason}.`, hasMore && "More jobs match; repeat it for them."].filter(Boolean).join(" ");
}

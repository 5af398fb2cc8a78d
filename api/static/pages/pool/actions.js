// Pauses, drains and resumes workers, and pauses and resumes adapters.

import { sendJson } from "../../lib/api.js";
import { confirmAction } from "../../lib/confirm.js";
import { fill, h } from "../../lib/dom.js";
import { errorBox } from "../../lib/notices.js";

/** Build the actions. `live` announces what was done; `element` shows errors. */
export function poolActions(live) {
  const element = h("div");

  async function act(path, text) {
    fill(element);
    try {
      await sendJson("POST", path);
      live.say(text);
    } catch (error) {
      fill(element, errorBox(error));
    }
  }

  /** `verb` is "pause", "resume" or "drain". */
  async function worker({ id, name }, verb) {
    if (verb === "drain" && !(await confirmedDrain(name))) return;
    await act(`v1/workers/${encodeURIComponent(id)}/${verb}`, `Worker ${name}: ${verb}`);
  }

  /** `verb` is "pause" or "resume". */
  async function adapter(name, verb) {
    await act(`v1/adapters/${name.split("/").map(encodeURIComponent).join("/")}/${verb}`, `Adapter ${name}: ${verb}`);
  }

  return { element, worker, adapter };
}

function confirmedDrain(name) {
  return confirmAction({
    title: `Drain worker ${name}?`,
    text: "It gets no new jobs. Jobs that it doesn't finish in time continue on other workers. Then you can stop it, or resume it.",
    action: "Drain",
    keep: "Cancel",
  });
}

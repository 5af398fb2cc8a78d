// A dialog with fields whose values are sent to the server.

import { fill, h, setText } from "./dom.js";
import { errorBox } from "./notices.js";

/**
 * Show a form; resolves to what an action returned, or to null if the dialog was closed.
 *
 * `submit` and `other`, a second button, are `{label, run, tone}`. While `run()` works, the buttons are
 * off and `busy` is shown. If it throws, the dialog shows the error and stays open.
 */
export function formDialog({ title, fields, submit, other = null, busy }) {
  return new Promise((resolve) => {
    let result = null;
    const state = h("p", { class: "muted", role: "status" });
    const outcome = h("div");
    const run = async (action) => {
      setBusy(true);
      try {
        result = await action.run();
        dialog.close();
      } catch (error) {
        fill(outcome, errorBox(error));
      }
      setBusy(false);
    };
    const buttons = [other && button(other, "button", () => run(other)), button(submit, "submit")].filter(Boolean);
    const setBusy = (isBusy) => {
      for (const each of buttons) each.disabled = isBusy;
      setText(state, isBusy ? busy : "");
      if (isBusy) fill(outcome);
    };
    const close = h("button", { type: "button", class: "button button-quiet", onclick: () => dialog.close() }, "Close");
    const form = h("form", null, h("h2", { id: "form-title" }, title), fields, state, outcome, h("div", { class: "dialog-actions" }, close, buttons));
    const dialog = h("dialog", { class: "dialog dialog-form", "aria-labelledby": "form-title" }, form);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      run(submit);
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(result);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

function button({ label, tone = "" }, type, onclick) {
  return h("button", { type, class: `button ${tone}`, onclick }, label);
}

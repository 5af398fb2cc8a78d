// A dialog with fields whose values are sent to the server.

import { fill, h, setText } from "./dom.js";
import { errorBox } from "./notices.js";

/**
 * Show a form. Resolves to the result of an action, or to null if the dialog was closed without one.
 *
 * `submit` and `other` describe two buttons: `{label, run, tone, isDisabled}`. While `run()` works, the buttons are
 * disabled and `busy` is shown. If it throws, the dialog shows the error and stays open. If the user
 * closes the dialog while `run()` works, the promise settles with the result of `run()`.
 */
export function formDialog({ title, fields, submit, other = null, busy }) {
  return new Promise((resolve) => {
    let outcome = null; // promise of the action that is running or has succeeded
    const state = h("p", { class: "muted", role: "status" });
    const problem = h("div");
    const run = async (action, pressed) => {
      setBusy(true);
      try {
        await (outcome = action.run());
        dialog.close();
        return;
      } catch (error) {
        if (!dialog.open) return;
        outcome = null;
        fill(problem, errorBox(error));
      }
      setBusy(false);
      pressed.focus(); // it lost the focus when it was disabled
    };
    const buttons = [other && button(other, "button", ({ target }) => run(other, target)), button(submit, "submit")].filter(Boolean);
    const setBusy = (isBusy) => {
      for (const each of buttons) each.disabled = isBusy || each.isDisabled;
      setText(state, isBusy ? busy : "");
      if (isBusy) fill(problem);
    };
    const close = h("button", { type: "button", class: "button button-quiet", onclick: () => dialog.close() }, "Close");
    const form = h("form", null, h("h2", { id: "form-title" }, title), fields, state, problem, h("div", { class: "dialog-actions" }, close, buttons));
    const dialog = h("dialog", { class: "dialog dialog-form", "aria-labelledby": "form-title" }, form);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      run(submit, buttons.at(-1));
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(outcome);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

function button({ label, tone = "", isDisabled = false }, type, onclick) {
  const element = h("button", { type, class: `button ${tone}`, disabled: isDisabled, onclick }, label);
  return Object.assign(element, { isDisabled });
}

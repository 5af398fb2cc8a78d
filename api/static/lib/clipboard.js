// Copies texts for the user.

import { setText } from "./dom.js";

/**
 * Copy `text`, and say so in the element `said`. Browsers have a clipboard on https and localhost only; elsewhere,
 * `select()` selects the text for the user.
 */
export async function copyText(text, { said, select }) {
  try {
    await navigator.clipboard.writeText(text);
    setText(said, "Copied");
  } catch {
    select();
    setText(said, "Selected");
  }
}

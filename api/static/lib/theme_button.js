// The button that switches between dark and light. Until the user chooses, the system's theme applies.

import { h, setAttr } from "./dom.js";

const STORED = "lorikeet-theme";
const system = matchMedia("(prefers-color-scheme: dark)");

/** Build the button; it remembers the choice in this browser. */
export function themeButton() {
  const button = h("button", { type: "button", class: "button button-quiet button-icon", onclick: toggle });
  const icon = h("span", { class: "theme-icon", "aria-hidden": "true" });
  button.append(icon);

  function show() {
    const next = isDark() ? "light" : "dark";
    setAttr(button, "aria-label", `Use the ${next} theme`);
    setAttr(button, "title", `Use the ${next} theme`);
  }

  function toggle() {
    const next = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    localStorage.setItem(STORED, next);
    show();
  }

  system.addEventListener("change", show);
  show();
  return button;
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : system.matches;
}

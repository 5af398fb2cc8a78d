// Runs before the first paint: applies the remembered theme, and reports a console that can't be loaded.

// The attribute is absent while the system decides.
const remembered = localStorage.getItem("lorikeet-theme");
if (remembered === "dark" || remembered === "light") {
  document.documentElement.dataset.theme = remembered;
}

const isFile = (target) => target?.tagName === "SCRIPT" || target?.tagName === "LINK";
addEventListener("error", ({ target }) => isFile(target) && addEventListener("DOMContentLoaded", showBroken), true);

function showBroken() {
  const text = document.createElement("p");
  text.className = "notice notice-error";
  text.setAttribute("role", "alert");
  text.textContent = "The console's files can't be loaded. Reload the page once the front end can be reached.";
  document.getElementById("content").replaceChildren(text);
}

// Applies the remembered theme before the first paint. The attribute is absent while the system decides.
const remembered = localStorage.getItem("lorikeet-theme");
if (remembered === "dark" || remembered === "light") {
  document.documentElement.dataset.theme = remembered;
}

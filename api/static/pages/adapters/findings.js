// Shows the results of the check of an adapter's files.

import { h } from "../../lib/dom.js";
import { bytes, count, plural } from "../../lib/format.js";

/** A box with the outcome of POST /v1/adapters/validate. */
export function findingsBox(found) {
  const isOther = found.base.trained_on && found.base.trained_on !== found.base.name;
  return h(
    "div",
    { class: `notice ${found.valid ? "notice-good" : "notice-error"}`, role: "status" },
    h("strong", null, found.valid ? "It can be loaded." : "It can't be loaded."),
    found.error && h("p", null, found.error.message),
    h(
      "dl",
      { class: "findings" },
      fact("Source", found.source),
      fact("Version", found.version ?? found.digest?.slice(0, 12)),
      fact("Size", found.bytes === null ? null : bytes(found.bytes)),
      fact("Ranks", found.ranks.map(({ rank, modules }) => `${rank} (${plural(modules, "module")})`).join(", ")),
      fact("Tensors", found.num_tensors ? `${count(found.num_tensors - found.num_unmatched)} match, ${count(found.num_unmatched)} don't` : null),
      fact("Base model", found.base.name),
      fact("Trained on", isOther ? found.base.trained_on : null),
    ),
    names("Tensors that match no module of the base model", found.unmatched),
    names("Tensors that match", found.matched),
  );
}

function fact(name, value) {
  return value && h("div", null, h("dt", null, name), h("dd", null, value));
}

function names(title, list) {
  if (!list.length) return null;
  const code = h("pre", { class: "code", tabindex: "0", role: "region", "aria-label": title }, list.join("\n"));
  return h("details", null, h("summary", null, `${title} (${count(list.length)})`), code);
}

// Builds DOM nodes. Text reaches the page only as text nodes: names and answers are not trusted.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Create an HTML element.
 *
 * `props`: `class`, `dataset` and `style` (objects; styles go through CSSOM, which the CSP permits),
 * `onclick` and other `on...` listeners, DOM properties such as `value` or `disabled`, else attributes.
 * A prop that is null, undefined or false is left out. `children`: nodes, strings, numbers, arrays of
 * them; null, undefined and false are left out.
 */
export function h(tag, props, ...children) {
  return build(document.createElement(tag), props, children);
}

/** Create an SVG element; the arguments are those of `h`. */
export function svg(tag, props, ...children) {
  return build(document.createElementNS(SVG, tag), props, children);
}

function build(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) setProp(element, name, value);
  append(element, children);
  return element;
}

const AS_PROPERTY = new Set(["value", "checked", "disabled", "selected", "hidden", "open", "indeterminate"]);

function setProp(element, name, value) {
  if (value === null || value === undefined || value === false) return;
  if (name.startsWith("on") && typeof value === "function") {
    element.addEventListener(name.slice(2), value);
  } else if (name === "dataset") {
    Object.assign(element.dataset, value);
  } else if (name === "style") {
    for (const [property, text] of Object.entries(value)) element.style.setProperty(property, text);
  } else if (AS_PROPERTY.has(name) && name in element) {
    element[name] = value;
  } else {
    element.setAttribute(name, value === true ? "" : String(value));
  }
}

/** Append nodes, strings, numbers and arrays of them. */
export function append(parent, children) {
  for (const child of [children].flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    parent.append(child instanceof Node ? child : String(child));
  }
}

/** Replace everything in `parent`. */
export function fill(parent, ...children) {
  parent.replaceChildren();
  append(parent, children);
}

/** Set the text of `node` if it differs. */
export function setText(node, text) {
  const wanted = String(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

/** Set an attribute if it differs; null removes it. */
export function setAttr(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) {
    node.setAttribute(name, String(value));
  }
}

/**
 * Keep the children of `parent` in step with `items`, reusing nodes by key.
 *
 * `keyOf(item)` names a node, `create(item)` builds it, `update(node, item)` is called for every item.
 */
export function keyed(parent, items, { keyOf, create, update }) {
  const known = (parent.keyedNodes ??= new Map());
  const wanted = new Map(items.map((item) => [keyOf(item), item]));
  for (const [key, node] of known) {
    if (!wanted.has(key)) {
      node.remove();
      known.delete(key);
    }
  }
  let place = parent.firstChild;
  for (const [key, item] of wanted) {
    let node = known.get(key);
    if (!node) known.set(key, (node = create(item)));
    update?.(node, item);
    if (node === place) place = place.nextSibling;
    // moveBefore keeps the focus, which insertBefore would drop.
    else if (node.parentNode === parent && parent.moveBefore) parent.moveBefore(node, place);
    else parent.insertBefore(node, place);
  }
}

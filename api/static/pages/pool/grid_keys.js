// Keyboard of a grid: the arrow keys, Home and End move the focus; one cell is in the tab order.

const STEPS = {
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
  Home: [0, -Infinity],
  End: [0, Infinity],
  PageUp: [-10, 0],
  PageDown: [10, 0],
};

/** Move the focus over the cells of `table` that have a tabindex. */
export function moveByKeys(table) {
  table.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    const cell = event.target.closest("[tabindex]");
    if (!step || !table.contains(cell) || event.altKey || event.metaKey) return;
    event.preventDefault();
    neighbour(table, cell, step)?.focus();
  });
  table.addEventListener("focusin", ({ target }) => {
    for (const other of table.querySelectorAll('[tabindex="0"]')) other.tabIndex = -1;
    target.tabIndex = 0;
  });
}

function neighbour(table, cell, [down, right]) {
  const rows = [...table.querySelectorAll('[role="row"]')];
  const row = cell.closest('[role="row"]');
  const isHead = rows[0] === row;
  // The head row has no focusable name, so its first worker is in the second column.
  const column = stops(row).indexOf(cell) + (isHead ? 1 : 0);
  const target = rows[clamp(rows.indexOf(row) + down, 0, rows.length - 1)];
  const wanted = stops(target);
  const offset = target === rows[0] ? 1 : 0;
  return wanted[clamp(column + right - offset, 0, wanted.length - 1)];
}

function stops(row) {
  return [...row.querySelectorAll("[tabindex]:not([hidden])")];
}

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

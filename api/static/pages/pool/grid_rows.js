// The rows of the grid: one per adapter version, with its queue and its state on each worker.

const ORDERS = {
  waiting: (a, b) => b.waiting - a.waiting,
  running: (a, b) => b.running - a.running,
  requests: (a, b) => b.requests - a.requests,
};

/**
 * Rows in display order: `{name, version, is_current, is_base, waiting, ..., cells, hasVersions}`.
 *
 * `cells` maps a worker's id to `{state, running}`. `hasVersions` is true if another row has the name.
 */
export function rowsOf(pool, { filter, order }) {
  const cells = cellsByVersion(pool.workers);
  const uses = new Map();
  for (const { name } of pool.adapters) uses.set(name, (uses.get(name) ?? 0) + 1);
  const wanted = filter.trim().toLowerCase();
  return pool.adapters
    .filter(({ name }) => name.toLowerCase().includes(wanted))
    .map((adapter) => ({
      ...adapter,
      cells: cells.get(adapter.version) ?? new Map(),
      hasVersions: uses.get(adapter.name) > 1,
    }))
    .sort((a, b) => ORDERS[order]?.(a, b) || byName(a, b));
}

/** Order of rows: the base model comes first, and the current version before others of its name. */
function byName(a, b) {
  return (
    (b.is_base ?? false) - (a.is_base ?? false) ||
    a.name.localeCompare(b.name, "en", { numeric: true }) ||
    b.is_current - a.is_current
  );
}

function cellsByVersion(workers) {
  const cells = new Map();
  for (const { id, adapters } of workers) {
    for (const adapter of adapters) {
      if (!cells.has(adapter.version)) cells.set(adapter.version, new Map());
      cells.get(adapter.version).set(id, adapter);
    }
  }
  return cells;
}

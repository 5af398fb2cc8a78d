// Rights of the tab's key, as far as pages must know them before they show a field or a button.

import { currentKey, getJson } from "./api.js";

let known = { key: undefined, isAdmin: null };

/**
 * Return whether requests of this tab have the scope `admin`. The server is asked once per key.
 *
 * Raises ApiError if the server can't answer.
 */
export async function isAdmin(signal) {
  if (known.isAdmin === null || known.key !== currentKey()) {
    const answer = await mayReadAudit(signal);
    known = { key: currentKey(), isAdmin: answer };
  }
  return known.isAdmin;
}

async function mayReadAudit(signal) {
  try {
    await getJson("v1/audit_log?limit=1", { signal });
    return true;
  } catch (error) {
    if (error.status !== 403) throw error;
    return false;
  }
}

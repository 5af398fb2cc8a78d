// The URL's hash: `#/PAGE/PATH?QUERY`. Pages keep their filters in it, so that a link shows the same.

/** The part of the hash between the page's name and the query, or "". Text that isn't encoded correctly is taken as it is. */
export function hashPath() {
  const text = location.hash.match(/^#\/[^/?]*\/([^?]*)/)?.[1] ?? "";
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The parameters in the hash. */
export function hashQuery() {
  return new URLSearchParams(location.hash.match(/\?(.*)$/s)?.[1] ?? "");
}

/** Build the hash of a page. Parameters without a value are left out. */
export function hashOf(page, { path = "", query = {} } = {}) {
  const set = [...Object.entries(query)].filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const text = new URLSearchParams(set).toString();
  return `#/${page}${path && `/${encodeURIComponent(path)}`}${text && `?${text}`}`;
}

/** Change the hash without a new entry in the browser's history. No event is sent. */
export function replaceHash(hash) {
  if (location.hash !== hash) history.replaceState(null, "", hash);
}

// Waits, and polls.

/** Wait. The promise resolves early once `signal` aborts. */
export function sleep(ms, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end);
    if (signal.aborted) end();
  });
}

/** Wait until the tab is visible. The promise resolves early once `signal` aborts. */
export async function visible(signal) {
  while (document.hidden && !signal.aborted) {
    await new Promise((resolve) => {
      const end = () => {
        document.removeEventListener("visibilitychange", end);
        signal.removeEventListener("abort", end);
        resolve();
      };
      document.addEventListener("visibilitychange", end);
      signal.addEventListener("abort", end);
    });
  }
}

/**
 * Call `read` at once, and again `everyMs` after each call has ended, until `signal` aborts.
 *
 * Hidden tabs wait until they are visible. `read` must handle its errors.
 */
export async function poll(read, { everyMs, signal }) {
  while (!signal.aborted) {
    await read();
    await sleep(everyMs, signal);
    await visible(signal);
  }
}

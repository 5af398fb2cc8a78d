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

const RETRY_MS = 2000;

/** Call `read` again some time after a failure that may pass by itself, unless `signal` aborts. */
export async function retryLater(read, error, signal) {
  if (!error.isPassing) return;
  await sleep(RETRY_MS, signal);
  await visible(signal);
  if (!signal.aborted) read();
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

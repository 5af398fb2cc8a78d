// Splits work so that no task blocks the browser.

const BUDGET_MS = 4;
const channel = new MessageChannel();
const resumed = [];
channel.port1.onmessage = () => resumed.shift()();

/** Continue in a new task. Unlike timers, messages are not slowed down in background tabs. */
export function nextTask() {
  return new Promise((resolve) => {
    resumed.push(resolve);
    channel.port2.postMessage(null);
  });
}

/**
 * Continue in a new task after the next frame, so that the browser first lays out earlier changes.
 *
 * Hidden tabs have no frames.
 */
export async function nextFrame() {
  if (!document.hidden) await new Promise((resolve) => requestAnimationFrame(resolve));
  await nextTask();
}

/** Call `work` for each item, and wait for `between()` whenever `BUDGET_MS` is used up. */
export async function inSlices(items, work, between) {
  let began = performance.now();
  for (const item of items) {
    if (performance.now() - began > BUDGET_MS) {
      await between();
      began = performance.now();
    }
    work(item);
  }
}

// Splits work so that no task blocks the browser.

const BUDGET_MS = 8;
const channel = new MessageChannel();
const resumed = [];
channel.port1.onmessage = () => resumed.shift()();

/** Wait for a task of its own. Unlike timers, messages are not slowed down in background tabs. */
export function nextTask() {
  return new Promise((resolve) => {
    resumed.push(resolve);
    channel.port2.postMessage(null);
  });
}

/** Call `work` for each item, and let the browser do other work whenever `BUDGET_MS` is used up. */
export async function inSlices(items, work) {
  let began = performance.now();
  for (const item of items) {
    if (performance.now() - began > BUDGET_MS) {
      await nextTask();
      began = performance.now();
    }
    work(item);
  }
}

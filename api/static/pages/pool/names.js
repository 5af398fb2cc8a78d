// Short names of workers and adapter versions, and links to them.

import { hashOf } from "../../lib/location.js";

const WORKER = /:([0-9a-f]{4})[0-9a-f]{28}$/;

/** The short name of a worker, which is the same in the pool's state, the command line and the logs. */
export function workerName(id) {
  return id.match(WORKER)?.[1] ?? id;
}

/** Hash that shows a worker on the Pool page. */
export function workerLink(id) {
  return hashOf("pool", { query: { worker: workerName(id) } });
}

/** Host and process id of a worker: "host:17". */
export function workerHost(id) {
  return id.split(":").slice(0, -1).join(":") || id;
}

/** The first characters of a version's digest: "1f0c29" of "sql@1f0c29...". */
export function shortVersion(version) {
  return version.split("@").at(-1).split(":").at(-1).slice(0, 6);
}

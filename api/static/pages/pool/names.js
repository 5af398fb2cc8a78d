// Short names of workers and adapter versions.

/** The four characters that name a worker in the head of its column: "a3f2" of "host:17:a3f2...". */
export function shortWorker(id) {
  return id.split(":").at(-1).slice(0, 4);
}

/** Host and process id of a worker: "host:17". */
export function workerHost(id) {
  return id.split(":").slice(0, -1).join(":") || id;
}

/** The first characters of a version's digest: "1f0c29" of "sql@1f0c29...". */
export function shortVersion(version) {
  return version.split("@").at(-1).split(":").at(-1).slice(0, 6);
}

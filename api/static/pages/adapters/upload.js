// Sends an adapter's files to the server, with progress.

import { ApiError, currentKey, urlOf } from "../../lib/api.js";

export const CONFIG = "adapter_config.json";
export const WEIGHTS = "adapter_model.safetensors";
const HEADER_BYTES = 8;
const CONFIG_KEY = "adapter_config";

/**
 * Find an adapter's files among `files`: `{weights, config, folder}`; `config` may be null.
 *
 * Throws an Error that names the missing file.
 */
export function adapterFiles(files) {
  const config = files.find(({ name }) => name === CONFIG) ?? null;
  const tensors = files.filter(({ name }) => name.endsWith(".safetensors"));
  const weights = tensors.find(({ name }) => name === WEIGHTS) ?? (tensors.length === 1 ? tensors[0] : null);
  if (weights) return { weights, config };
  const names = files.map(({ name }) => name).slice(0, 8).join(", ");
  throw new Error(`Choose ${WEIGHTS} and ${CONFIG} of one adapter. There is no ${WEIGHTS} among: ${names || "no files"}.`);
}

/** Files of a drop, and of the folders in it. */
export async function droppedFiles(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  return (await Promise.all(entries.map(filesIn))).flat();
}

async function filesIn(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    found.push(...some.filter(({ isFile }) => isFile));
  }
  return (await Promise.all(found.map(filesIn))).flat();
}

/** The content of `adapter_config.json`, or null. Throws an Error if it isn't a JSON object. */
export async function readConfig(file) {
  if (file === null) return null;
  try {
    const config = JSON.parse(await file.text());
    if (config !== null && typeof config === "object" && !Array.isArray(config)) return config;
  } catch {
    // The message below is clearer than the parser's.
  }
  throw new Error(`${CONFIG} is not a JSON object.`);
}

/**
 * Send the files as a new version of the adapter `name`, and return the adapter.
 *
 * `onProgress(fraction)` is called while they are sent. fetch can't report that, so this uses
 * XMLHttpRequest. Raises ApiError, or AbortError if `signal` aborts.
 */
export async function upload(name, { weights, config }, { signal, onProgress }) {
  const text = config === null ? null : await config.text();
  const joined = text === null ? weights : await withConfig(weights, text);
  const query = new URLSearchParams(joined === null ? { name, config: text } : { name });
  const key = currentKey();
  return new Promise((resolve, reject) => {
    const call = new XMLHttpRequest();
    call.open("POST", urlOf(`v1/adapters?${query}`));
    call.setRequestHeader("Content-Type", "application/octet-stream");
    if (key !== null) call.setRequestHeader("Authorization", `Bearer ${key}`);
    call.upload.onprogress = ({ loaded, total }) => onProgress(total ? loaded / total : 0);
    call.onload = () => (call.status === 200 ? resolve(JSON.parse(call.responseText)) : reject(errorOf(call)));
    call.onerror = () => reject(new ApiError(0, "The connection broke while the files were sent."));
    call.onabort = () => reject(new DOMException("aborted", "AbortError"));
    signal.addEventListener("abort", () => call.abort(), { once: true });
    call.send(joined ?? weights);
  });
}

/**
 * The safetensors file with the text of adapter_config.json in its metadata.
 *
 * The server also accepts the text in the URL, but a URL's length is limited. Null if the file isn't in
 * the safetensors format. The server then reports the error.
 */
async function withConfig(weights, config) {
  const size = Number(new DataView(await weights.slice(0, HEADER_BYTES).arrayBuffer().then(padded)).getBigUint64(0, true));
  let header;
  try {
    header = JSON.parse(await weights.slice(HEADER_BYTES, HEADER_BYTES + size).text());
  } catch {
    return null;
  }
  header.__metadata__ = { ...header.__metadata__, [CONFIG_KEY]: config };
  const text = new TextEncoder().encode(JSON.stringify(header));
  const spaces = " ".repeat((HEADER_BYTES - (text.length % HEADER_BYTES)) % HEADER_BYTES);
  const length = new DataView(new ArrayBuffer(HEADER_BYTES));
  length.setBigUint64(0, BigInt(text.length + spaces.length), true);
  return new Blob([length.buffer, text, spaces, weights.slice(HEADER_BYTES + size)]);
}

/** At least 8 bytes, so that a file that is too short has a length of 0. */
function padded(buffer) {
  return buffer.byteLength === HEADER_BYTES ? buffer : new ArrayBuffer(HEADER_BYTES);
}

function errorOf(call) {
  try {
    const { message, code } = JSON.parse(call.responseText).error;
    return new ApiError(call.status, message, code);
  } catch {
    return new ApiError(call.status, call.responseText.slice(0, 300) || call.statusText);
  }
}

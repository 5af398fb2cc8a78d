// One request of the Compare page: it is sent as a background job and followed to its end.
//
// Everything that a reloaded page needs is in `state`. It contains the idempotency key before the
// request is sent, so that a page that is reloaded meanwhile repeats this job and creates no second one.

import { ApiError, getJson, onKeyChange, sendJson } from "../../lib/api.js";
import { TEMPORARY, addCalls, followJob, pause } from "../jobs/stream.js";

const PATH = "v1/chat/completions";
const POSITION_MS = 1500;
const SEND_AGAIN_MS = 1000;
const UNREACHABLE = new Set([0]);

/** The state of a run before it is sent. Times are this browser's, in Unix milliseconds. */
export function newState(body) {
  return {
    body, key: randomKey(), job: null, phase: "sending", position: null,
    lastId: "", text: "", reasoning: "", calls: [], tokens: [], version: null, finish: null, error: null,
    isStopped: false, sentMs: null, firstMs: null, isContinued: false, usage: null, servedS: null,
  };
}

/** The state without its answer, which `follow` then gets again from the job's start. */
export function fromStart(state) {
  const { job, phase, error } = state;
  return {
    ...state, text: "", reasoning: "", calls: [], tokens: [], lastId: "", isContinued: true,
    phase: job === null ? phase : "waiting", error: job === null ? error : null,
  };
}

/** Follow a run from its `state` to its end, and call `changed()` whenever `state` has changed. */
export async function follow(state, signal, changed) {
  try {
    if (state.job === null) state.job = await accepted(state, signal);
    if (state.phase === "sending") state.phase = "waiting";
    if (state.isStopped) await persist(() => cancel(state), TEMPORARY, signal);
    changed();
    await receive(state, signal, changed);
    await conclude(state, signal);
    state.phase = "done";
  } catch (error) {
    if (signal.aborted) throw error;
    state.phase = error.code === "cancelled" ? "cancelled" : "failed";
    state.error = { status: error.status ?? 0, code: error.code ?? null, message: error.message };
  }
  changed();
}

/** True if the run has ended, so that it needn't be followed. */
export function hasEnded(state) {
  return ["done", "failed", "cancelled"].includes(state.phase);
}

/** Cancel the run's job, or let its follower do so. The run then ends with the phase "cancelled". */
export async function cancel(state) {
  if (state.job === null) state.isStopped = true;
  else if (!hasEnded(state)) await sendJson("POST", `v1/jobs/${state.job}/cancel`);
}

/** Seconds from the request to the first token; null if unknown. */
export function firstTokenS(state) {
  return state.firstMs === null || state.isContinued ? null : (state.firstMs - state.sentMs) / 1000;
}

/**
 * Tokens per second from the job's start on a worker to its end; null if unknown. It is measured by the
 * server, because tokens may reach this page in bursts.
 */
export function tokensPerS(state) {
  const num = state.usage?.completion_tokens;
  return state.servedS && num ? num / state.servedS : null;
}

async function accepted(state, signal) {
  const headers = { "Idempotency-Key": state.key };
  const body = { ...state.body, background: true };
  state.sentMs ??= Date.now();
  // The time that the user needs to log in isn't part of the server's time.
  const stopKey = onKeyChange(() => (state.sentMs = Date.now()));
  try {
    // If the connection broke, the job may exist. A request with the same key then returns it.
    return (await persist(() => sendJson("POST", PATH, body, { headers, signal }), UNREACHABLE, signal)).id;
  } finally {
    stopKey();
  }
}

/** Call `send` again after each ApiError with one of these statuses. */
async function persist(send, statuses, signal) {
  for (;;) {
    try {
      return await send();
    } catch (error) {
      if (!(error instanceof ApiError) || !statuses.has(error.status)) throw error;
      await pause(SEND_AGAIN_MS, signal);
    }
  }
}

async function receive(state, signal, changed) {
  const waiting = new AbortController();
  showPosition(state, AbortSignal.any([signal, waiting.signal]), changed);
  try {
    for await (const piece of followJob(state.job, { lastId: state.lastId, signal })) {
      if (piece.isRestart) Object.assign(state, { text: "", reasoning: "", calls: [], tokens: [] });
      else add(state, piece);
      state.lastId = piece.id;
      changed();
    }
  } finally {
    waiting.abort();
  }
}

function add(state, piece) {
  state.text += piece.text;
  state.reasoning += piece.reasoning;
  addCalls(state.calls, piece.calls);
  state.tokens.push(...piece.tokens.map(compact));
  state.version = piece.version ?? state.version;
  state.finish = piece.finish ?? state.finish;
  if (!(piece.text || piece.reasoning || piece.calls.length || piece.tokens.length)) return;
  state.phase = "running";
  state.position = null;
  state.firstMs ??= Date.now();
}

/** The displayed part of a token's log-probabilities. The rest would fill the browser's storage. */
function compact({ token, logprob, bytes, top_logprobs: top }) {
  return { token, logprob, bytes, top: top.map((other) => [other.token, other.logprob]) };
}

/** While the job waits, keep its position in the queue up to date. */
async function showPosition(state, signal, changed) {
  while (state.phase === "waiting" && !signal.aborted) {
    const job = await getJson(`v1/jobs/${state.job}`, { signal }).catch(() => null);
    if (state.phase !== "waiting" || signal.aborted) return;
    state.position = job?.position ?? null;
    changed();
    await pause(POSITION_MS, signal).catch(() => {});
  }
}

/** Read the token counts and the server's times, which aren't in the stream. The answer is complete already. */
async function conclude(state, signal) {
  const job = await persist(() => getJson(`v1/jobs/${state.job}`, { signal }), TEMPORARY, signal).catch((error) => {
    if (signal.aborted) throw error;
    return {};
  });
  state.usage = job.usage ?? null;
  state.servedS = job.ended_ms && job.started_ms ? (job.ended_ms - job.started_ms) / 1000 : null;
}

/** 32 random hex digits. `crypto.randomUUID` exists on https and localhost only. */
function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

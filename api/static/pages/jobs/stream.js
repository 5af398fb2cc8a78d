// Follows a job's stream across broken connections and restarts of front ends, and reads its events.

import { ApiError, sseEvents } from "../../lib/api.js";

const RETRY_MS = 1000;
/** Statuses of failures after which a request is worth sending again. */
export const TEMPORARY = new Set([0, 429, 502, 503, 504]);
const LAST_TYPES = new Set(["response.completed", "response.incomplete", "message_stop"]);

/**
 * Iterate over the pieces of a job's answer, each with `id`, the id of the event it came with.
 *
 * With `lastId`, the pieces begin exactly after that event. The iterator ends with the answer. A
 * piece `{isRestart: true}` means that all earlier pieces are void. Raises ApiError if the job
 * failed or doesn't exist, and AbortError if `signal` aborts.
 */
export async function* followJob(job, { lastId = "", signal }) {
  let hasPieces = false;
  for (;;) {
    if (hasPieces && lastId === "") yield { isRestart: true, id: "" }; // this stream has no ids
    hasPieces = false;
    try {
      for await (const event of eventsAfter(job, lastId, signal)) {
        if (event.data === "[DONE]") return;
        const data = JSON.parse(event.data);
        const error = errorIn(data);
        if (error?.code === "server_stopping") break;
        if (error) throw new ApiError(error.status ?? 200, error.message, error.code ?? error.type ?? null);
        if (event.id) lastId = event.id;
        for (const piece of piecesOf(data)) {
          yield { ...piece, id: lastId };
          hasPieces = true;
        }
        if (LAST_TYPES.has(data.type) || data.done === true) return;
      }
    } catch (error) {
      if (error.code === "resume_diverged" && lastId !== "") {
        lastId = "";
        yield { isRestart: true, id: "" };
        continue;
      }
      if (!(error instanceof ApiError) || !TEMPORARY.has(error.status)) throw error;
    }
    await pause(RETRY_MS, signal);
  }
}

function eventsAfter(job, lastId, signal) {
  const headers = lastId ? { "Last-Event-ID": lastId } : {};
  return sseEvents(`v1/jobs/${encodeURIComponent(job)}/stream`, { headers, signal });
}

function errorIn(data) {
  if (data.type === "response.failed") return data.response?.error ?? { message: "The response failed." };
  if (typeof data.error === "string") return { message: data.error, code: data.code };
  return data.error ?? null;
}

/** Wait, or raise the signal's reason once it aborts. */
export function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}

/**
 * Read one event of any endpoint's stream as pieces
 * `{choice, text, reasoning, calls, tokens, finish, version}`.
 */
function piecesOf(data) {
  if (data.choices) return data.choices.map((choice) => ({ ...pieceOf(choice), version: data.weight_version ?? null }));
  if ("done" in data) return [{ ...piece(ollamaParts(data)), finish: data.done_reason ?? null }];
  switch (data.type) {
    case "response.output_text.delta":
      return [piece({ text: data.delta })];
    case "response.reasoning_text.delta":
      return [piece({ reasoning: data.delta })];
    case "response.function_call_arguments.delta":
      return [piece({ text: data.delta })];
    case "content_block_delta":
      return [piece({ text: data.delta.text ?? data.delta.partial_json ?? "", reasoning: data.delta.thinking ?? "" })];
    case "message_delta":
      return [piece({ finish: data.delta.stop_reason ?? null })];
    default:
      return [];
  }
}

/** The text and the reasoning of an object of Ollama's API, whether it is a part or a whole answer. */
export function ollamaParts(data) {
  const said = data.message ?? { content: data.response, thinking: data.thinking };
  const calls = (said.tool_calls ?? []).map(({ function: called }) => `\n${called.name} ${JSON.stringify(called.arguments)}`);
  return { text: said.content + calls.join(""), reasoning: said.thinking ?? "" };
}

function piece(fields) {
  return { choice: 0, text: "", reasoning: "", calls: [], tokens: [], finish: null, version: null, ...fields };
}

/** Read a choice of a chat or a completion, whether it is a part of a stream or a whole answer. */
export function pieceOf(choice) {
  const message = choice.delta ?? choice.message ?? { content: choice.text };
  return piece({
    choice: choice.index,
    text: message.content ?? "",
    reasoning: message.reasoning ?? "",
    calls: message.tool_calls ?? [],
    tokens: choice.logprobs?.content ?? [],
    finish: choice.finish_reason ?? null,
  });
}

/** Tool calls, or parts of them, as text. */
export function callsText(calls) {
  const texts = calls.map(({ function: called }) => (called?.name ? `\n${called.name} ` : "") + (called?.arguments ?? ""));
  return texts.join("");
}

/** Add the parts of tool calls that came with a piece to `calls`: `[{id, name, arguments}]`. */
export function addCalls(calls, parts) {
  for (const { index = calls.length, id, function: called } of parts) {
    for (let next = calls.length; next <= index; next += 1) calls.push({ id: "", name: "", arguments: "" });
    const call = calls[index];
    call.id ||= id ?? "";
    call.name += called?.name ?? "";
    call.arguments += called?.arguments ?? "";
  }
}

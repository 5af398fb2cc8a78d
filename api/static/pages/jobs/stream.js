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
  for (;;) {
    try {
      for await (const event of eventsAfter(job, lastId, signal)) {
        if (event.data === "[DONE]") return;
        const data = JSON.parse(event.data);
        const error = errorIn(data);
        if (error?.code === "server_stopping") break;
        if (error) throw new ApiError(error.status ?? 200, error.message, error.code ?? error.type ?? null);
        if (event.id) lastId = event.id;
        for (const piece of piecesOf(data)) yield { ...piece, id: lastId };
        if (LAST_TYPES.has(data.type)) return;
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
 * `{choice, text, reasoning, tokens, finish, version}`.
 */
function piecesOf(data) {
  if (data.choices) return data.choices.map((choice) => ({ ...pieceOf(choice), version: data.weight_version ?? null }));
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

function piece(fields) {
  return { choice: 0, text: "", reasoning: "", tokens: [], finish: null, version: null, ...fields };
}

/** Read a choice of a chat or a completion, whether it is a part of a stream or a whole answer. */
export function pieceOf(choice) {
  const message = choice.delta ?? choice.message ?? { content: choice.text };
  return piece({
    choice: choice.index,
    text: (message.content ?? "") + toolCalls(message.tool_calls),
    reasoning: message.reasoning ?? "",
    tokens: choice.logprobs?.content ?? [],
    finish: choice.finish_reason ?? null,
  });
}

function toolCalls(calls) {
  const texts = (calls ?? []).map(({ function: called }) => (called?.name ? `\n${called.name} ` : "") + (called?.arguments ?? ""));
  return texts.join("");
}

// Reads the answer of a job that is done, in the format of any endpoint.

import { pieceOf } from "./stream.js";

/** The texts of a job's answer: `[{title, text, reasoning}]`; empty without an answer. */
export function answersOf(job) {
  if (job.choices) return job.choices.map((choice, index) => ({ title: `Choice ${index + 1}`, ...pieceOf(choice) }));
  if (job.data) return [{ title: "Embeddings", text: vectors(job.data), reasoning: "" }];
  if (job.answer?.output) return [{ title: "Response", ...joined(job.answer.output.flatMap(partsOfItem)) }];
  if (job.answer?.content) return [{ title: "Message", ...joined(job.answer.content) }];
  return [];
}

function vectors(data) {
  const [first] = data;
  const size = Array.isArray(first?.embedding) ? ` of ${first.embedding.length} numbers` : "";
  return `${data.length} embedding${data.length === 1 ? "" : "s"}${size}`;
}

/** Parts of an output item of the API of responses. */
function partsOfItem(item) {
  if (item.type === "function_call") return [{ text: `${item.name} ${item.arguments}` }];
  if (item.type === "reasoning") return (item.content ?? []).map(({ text }) => ({ thinking: text }));
  return item.content ?? [];
}

function joined(parts) {
  const texts = parts.map((part) => part.text ?? (part.type === "tool_use" ? `${part.name} ${JSON.stringify(part.input)}` : ""));
  return { text: texts.join(""), reasoning: parts.map((part) => part.thinking ?? "").join("") };
}

// Reads the answer of a job that is done, in the format of any endpoint.

import { callsText, ollamaParts, pieceOf } from "./stream.js";

/** The texts of a job's answer: `[{title, text, reasoning}]`; empty without an answer. */
export function answersOf(job) {
  if (job.choices) return job.choices.map((choice, index) => choiceText(pieceOf(choice), index));
  if (job.data) return [{ title: "Embeddings", text: vectors(job.data), reasoning: "" }];
  if (job.answer?.output) return [{ title: "Response", ...joined(job.answer.output.flatMap(partsOfItem)) }];
  if (job.answer?.content) return [{ title: "Message", ...joined(job.answer.content) }];
  if (job.answer?.done) return [{ title: "Message", ...ollamaParts(job.answer) }];
  const embeddings = job.answer?.embeddings ?? (job.answer?.embedding && [job.answer.embedding]);
  if (embeddings) return [{ title: "Embeddings", text: vectors(embeddings.map((embedding) => ({ embedding }))), reasoning: "" }];
  return [];
}

function choiceText({ text, reasoning, calls }, index) {
  return { title: `Choice ${index + 1}`, text: text + callsText(calls), reasoning };
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

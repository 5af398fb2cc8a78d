// Chats as data: their turns, and the requests and links made of them. No DOM.

import { hasEnded } from "../compare/run.js";
import { pack, unpack } from "../../lib/packed.js";

export const MAX_MODELS = 4;
const PARAMETERS = ["temperature", "top_p", "max_tokens", "seed"];
const MAX_SHARED_BYTES = 2 ** 21;
const TITLE_LENGTH = 48;

/**
 * An empty chat.
 *
 * `turns` are `{text, results, answers}`: the user's text, or the results of tools `[{id, text}]`; and one
 * answer per model, which is a state of compare/run.js or null.
 */
export function newChat(models = [""]) {
  return { id: randomId(), changed: Date.now(), models, system: "", parameters: {}, tools: "", turns: [] };
}

export function titleOf(chat) {
  const text = chat.turns[0]?.text?.trim() || "New chat";
  return text.length > TITLE_LENGTH ? `${text.slice(0, TITLE_LENGTH)}…` : text;
}

/** Body of the request for a model's answer to the last turn. Raises SyntaxError if the tools aren't JSON. */
export function bodyOf(chat, modelIndex) {
  const body = { model: chat.models[modelIndex].trim(), messages: messagesOf(chat, modelIndex) };
  for (const name of PARAMETERS) {
    const value = chat.parameters[name] ?? "";
    if (value !== "") body[name] = Number(value);
  }
  if (chat.tools.trim()) body.tools = JSON.parse(chat.tools);
  return body;
}

function messagesOf(chat, modelIndex) {
  const messages = chat.system.trim() ? [{ role: "system", content: chat.system }] : [];
  chat.turns.forEach((turn, index) => {
    if (turn.text !== null) messages.push({ role: "user", content: turn.text });
    for (const { id, text } of turn.results) messages.push({ role: "tool", tool_call_id: id, content: text });
    const answer = turn.answers[modelIndex] ?? turn.answers[0]; // a model that joined later continues the first one's answers
    if (index < chat.turns.length - 1 && answer) messages.push(messageOf(answer));
  });
  return messages;
}

function messageOf({ text, calls }) {
  if (!calls.length) return { role: "assistant", content: text };
  const toolCalls = calls.map((call) => ({ id: call.id, type: "function", function: { name: call.name, arguments: call.arguments } }));
  return { role: "assistant", content: text || null, tool_calls: toolCalls };
}

/** True while an answer of the chat is generated. */
export function isRunning(chat) {
  return chat.turns.some(({ answers }) => answers.some((answer) => answer && !hasEnded(answer)));
}

/** The chat as the browser keeps it: answers that have ended don't need their requests any more. */
export function compacted(chat) {
  const compact = (answer) => (answer && hasEnded(answer) ? { ...answer, body: null, tokens: [] } : answer);
  return { ...chat, turns: chat.turns.map((turn) => ({ ...turn, answers: turn.answers.map(compact) })) };
}

/** Text for a link that holds the chat. */
export function packed(chat) {
  const answers = (turn) => turn.answers.map((answer) => answer && [answer.text, answer.reasoning, answer.calls, answer.version]);
  const turns = chat.turns.map((turn) => [turn.text, turn.results, answers(turn)]);
  return pack(JSON.stringify([chat.models, chat.system, chat.parameters, chat.tools, turns]));
}

/** A new chat from the text of a link. Raises an error if the text is damaged. */
export async function unpacked(text) {
  const [models, system, parameters, tools, turns] = JSON.parse(await unpack(text, MAX_SHARED_BYTES));
  const names = models.slice(0, MAX_MODELS).map(String);
  const chat = newChat(names.length ? names : [""]);
  for (const name of PARAMETERS) if (parameters[name] !== undefined) chat.parameters[name] = String(parameters[name]);
  const answers = (given) => chat.models.map((_, index) => given[index] && sharedAnswer(given[index]));
  return {
    ...chat, system: String(system), tools: String(tools),
    turns: turns.map(([said, results, given]) => ({
      text: said === null ? null : String(said),
      results: results.map(({ id, text: result }) => ({ id: String(id), text: String(result) })),
      answers: answers(given),
    })),
  };
}

function sharedAnswer([text, reasoning, calls, version]) {
  return {
    phase: "done", job: null, body: null, text: String(text), reasoning: String(reasoning), tokens: [], finish: null, error: null,
    calls: calls.map((call) => ({ id: String(call.id), name: String(call.name), arguments: String(call.arguments) })),
    version: version === null ? null : String(version), usage: null, servedS: null, firstMs: null, isContinued: true,
  };
}

/** 16 random hex digits. */
function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

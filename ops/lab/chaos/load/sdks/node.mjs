// Reads streams with the official clients for Node. `process.py` describes the lines.

import { createInterface } from "node:readline";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const TIMEOUT_MS = 180000;
const FINISHES = {
  end_turn: "stop",
  stop_sequence: "stop",
  max_tokens: "length",
  completed: "stop",
  incomplete: "length",
};
const clients = new Map();

function clientOf(library, url) {
  const key = `${library} ${url}`;
  if (!clients.has(key)) {
    const options = { apiKey: "none", timeout: TIMEOUT_MS };
    const client = library.startsWith("openai")
      ? new OpenAI({ ...options, baseURL: `${url}/v1` })
      : new Anthropic({ ...options, baseURL: url });
    clients.set(key, client);
  }
  return clients.get(key);
}

const APIS = {
  chat: (client) => client.chat.completions,
  completions: (client) => client.completions,
  responses: (client) => client.responses,
  messages: (client) => client.messages,
};

function* choiceParts(chunk) {
  for (const choice of chunk.choices) {
    const text = choice.delta ? choice.delta.content : choice.text;
    yield { choice: choice.index, text: text ?? "", finish: choice.finish_reason };
  }
}

function* responseParts(event) {
  if (event.type === "response.output_text.delta") yield { text: event.delta };
  else if (["response.completed", "response.incomplete"].includes(event.type))
    yield { finish: FINISHES[event.response.status] };
  else if (event.type === "response.failed") throw new OpenAI.OpenAIError(event.response.error.message);
}

function* messageParts(event) {
  if (event.type === "content_block_delta") yield { text: event.delta.text };
  else if (event.type === "message_delta") yield { finish: FINISHES[event.delta.stop_reason] };
}

const PARTS = { chat: choiceParts, completions: choiceParts, responses: responseParts, messages: messageParts };

function failure(error) {
  const isOwn = error instanceof OpenAI.OpenAIError || error instanceof Anthropic.AnthropicError;
  // undici's error for a connection that breaks within a body.
  const isBroken = error instanceof TypeError && error.message === "terminated";
  const text = `${error.constructor.name}: ${error.message}`;
  return isOwn || isBroken ? { error: text, status: error.status ?? null } : { choked: text };
}

async function read({ id, library, api, url, fields, headers }) {
  const print = (reply) => process.stdout.write(`${JSON.stringify({ id, ...reply })}\n`);
  try {
    const call = APIS[api](clientOf(library, url)).create(fields, { headers });
    const { data: stream, response } = await call.withResponse();
    print({ job: response.headers.get("x-lorikeet-job") });
    for await (const event of stream) {
      for (const part of PARTS[api](event)) print(part);
    }
    print({ end: true });
  } catch (error) {
    print(failure(error));
  }
}

process.stdout.write("{}\n");
for await (const line of createInterface({ input: process.stdin })) read(JSON.parse(line));
process.exit();

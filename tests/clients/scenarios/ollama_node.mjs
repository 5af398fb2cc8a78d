// Scenarios of Ollama's client for Node.

import assert from "node:assert/strict";
import test from "node:test";
import { Ollama } from "ollama";

const chat = JSON.parse(process.env.WEATHER_CHAT);
const headers = { Authorization: `Bearer ${process.env.OLLAMA_API_KEY}` };
const client = new Ollama({ host: process.env.OLLAMA_HOST, headers });
const greeted = { role: "user", content: chat.HELLO };
const asked = { role: "user", content: chat.QUESTION };
const text = { model: chat.CALLER, messages: [greeted] };
const call = { model: `${chat.CALLER}:latest`, tools: [chat.CHAT_TOOL] };
const schema = {
  type: "object",
  properties: { where: { enum: ["left", "right"] } },
  required: ["where"],
  additionalProperties: false,
};

test("a streamed chat is the whole chat", async () => {
  const whole = await client.chat(text);
  let streamed = "";
  let last;
  for await (const part of await client.chat({ ...text, stream: true })) {
    streamed += part.message.content;
    last = part;
  }
  assert.equal(whole.message.content, chat.GREETING);
  assert.equal(streamed, chat.GREETING);
  assert.equal(last.done_reason, "stop");
  assert.equal(last.eval_count, whole.eval_count);
  assert.ok(last.total_duration > last.eval_duration);
});

test("a called tool gets its result sent back", async () => {
  const { message } = await client.chat({ ...call, messages: [asked] });
  const [{ function: called }] = message.tool_calls;
  assert.equal(called.name, chat.TOOL);
  assert.deepEqual(called.arguments, { city: chat.CITY });
  const result = { role: "tool", tool_name: chat.TOOL, content: chat.SKY };
  const answer = await client.chat({ ...call, messages: [asked, message, result] });
  assert.equal(answer.message.content, chat.ANSWER);
});

test("a stream calls a tool", async () => {
  const calls = [];
  for await (const part of await client.chat({ ...call, messages: [asked], stream: true })) {
    calls.push(...(part.message.tool_calls ?? []));
  }
  assert.deepEqual(calls.map((each) => each.function.arguments), [{ city: chat.CITY }]);
});

test("a prompt is answered", async () => {
  const whole = await client.generate({ model: chat.CALLER, prompt: chat.HELLO });
  assert.equal(whole.response, chat.GREETING);
  let streamed = "";
  const request = { model: chat.CALLER, prompt: chat.HELLO, stream: true };
  for await (const part of await client.generate(request)) streamed += part.response;
  assert.equal(streamed, chat.GREETING);
});

test("a schema is enforced", async () => {
  const { message } = await client.chat({ ...text, model: chat.BASE, format: schema });
  assert.ok(["left", "right"].includes(JSON.parse(message.content).where));
});

test("embeddings", async () => {
  const { embeddings } = await client.embed({ model: chat.BASE, input: ["a", "b"] });
  assert.equal(embeddings.length, 2);
  const { embedding } = await client.embeddings({ model: chat.BASE, prompt: "a" });
  assert.equal(embedding.length, embeddings[0].length);
});

test("models are listed, shown, loaded and pulled", async () => {
  const { models } = await client.list();
  assert.deepEqual(new Set(models.map((each) => each.name)),
    new Set(chat.MODELS.map((name) => `${name}:latest`)));
  assert.ok((await client.show({ model: chat.CALLER })).capabilities.includes("tools"));
  assert.equal((await client.chat({ model: chat.CALLER })).done_reason, "load");
  assert.ok((await client.ps()).models.length > 0);
  assert.match((await client.version()).version, /^\d+\.\d+\.\d+$/);
  for await (const part of await client.pull({ model: chat.CALLER, stream: true })) {
    assert.equal(part.status, "success");
  }
});

test("errors have their status and message", async () => {
  const unknown = { ...text, model: "nothing" };
  for (const request of [unknown, { ...unknown, stream: true }]) {
    await assert.rejects(client.chat(request), (error) =>
      error.status_code === 404 && error.message.includes("not found"));
  }
  await assert.rejects(client.delete({ model: chat.CALLER }), /lorikeet adapters unload/);
});

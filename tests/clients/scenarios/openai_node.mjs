// Scenarios of openai's client for Node.

import assert from "node:assert/strict";
import test from "node:test";
import { setTimeout } from "node:timers/promises";
import OpenAI from "openai";

const chat = JSON.parse(process.env.WEATHER_CHAT);
const client = new OpenAI({ maxRetries: 0 });
const greeted = { role: "user", content: chat.HELLO };
const asked = { role: "user", content: chat.QUESTION };
const text = { model: chat.CALLER, messages: [greeted] };
const call = { model: chat.CALLER, temperature: 0, tools: [chat.CHAT_TOOL] };
const schema = {
  type: "object",
  properties: { where: { enum: ["left", "right"] }, far: { type: "boolean" } },
  required: ["where", "far"],
  additionalProperties: false,
};

test("a streamed chat is the whole chat", async () => {
  const whole = await client.chat.completions.create(text);
  let streamed = "";
  for await (const chunk of await client.chat.completions.create({ ...text, stream: true })) {
    streamed += chunk.choices[0]?.delta?.content ?? "";
  }
  assert.equal(whole.choices[0].message.content, chat.GREETING);
  assert.equal(streamed, chat.GREETING);
});

test("the stream helper returns the final chat and its usage", async () => {
  const stream = client.chat.completions.stream({ ...text, stream_options: { include_usage: true } });
  const final = await stream.finalChatCompletion();
  const whole = await client.chat.completions.create(text);
  assert.equal(final.choices[0].message.content, chat.GREETING);
  assert.equal(final.choices[0].finish_reason, "stop");
  assert.equal(final.usage.total_tokens, whole.usage.total_tokens);
});

test("a called tool gets its result sent back", async () => {
  const { message } = (await client.chat.completions.create({ ...call, messages: [asked] })).choices[0];
  assert.deepEqual(JSON.parse(message.tool_calls[0].function.arguments), { city: chat.CITY });
  const result = { role: "tool", tool_call_id: message.tool_calls[0].id, content: chat.SKY };
  const answer = await client.chat.completions.create({ ...call, messages: [asked, message, result] });
  assert.equal(answer.choices[0].message.content, chat.ANSWER);
});

test("the tool runner executes the tool of a stream", async () => {
  const cities = [];
  const weather = {
    ...chat.CHAT_TOOL.function,
    parse: JSON.parse,
    function: ({ city }) => (cities.push(city), chat.SKY),
  };
  const tools = [{ type: "function", function: weather }];
  const runner = client.chat.completions.runTools({ ...call, messages: [asked], tools, stream: true });
  assert.equal(await runner.finalContent(), chat.ANSWER);
  assert.deepEqual(cities, [chat.CITY]);
});

test("an answer follows its schema for any model", async () => {
  const parsed = await client.chat.completions.parse({
    model: chat.BASE,
    messages: [greeted],
    max_tokens: 200,
    response_format: { type: "json_schema", json_schema: { name: "move", strict: true, schema } },
  });
  const move = JSON.parse(parsed.choices[0].message.content);
  assert.deepEqual(Object.keys(move).sort(), ["far", "where"]);
  assert.ok(["left", "right"].includes(move.where));
});

test("a streamed response is the whole response", async () => {
  const body = { model: chat.CALLER, input: chat.HELLO };
  let streamed = "";
  let last;
  for await (const event of await client.responses.create({ ...body, stream: true })) {
    if (event.type === "response.output_text.delta") streamed += event.delta;
    last = event;
  }
  assert.equal(streamed, chat.GREETING);
  assert.equal(last.type, "response.completed");
  assert.equal((await client.responses.create(body)).output_text, chat.GREETING);
});

test("embeddings are the same in both formats", async () => {
  const body = { model: chat.BASE, input: ["one", "two"] };
  const decoded = await client.embeddings.create(body);
  const floats = await client.embeddings.create({ ...body, encoding_format: "float" });
  floats.data.forEach(({ embedding }, i) =>
    embedding.forEach((value, j) => assert.ok(Math.abs(value - decoded.data[i].embedding[j]) < 1e-6)),
  );
  assert.notDeepEqual(floats.data[0].embedding, floats.data[1].embedding);
});

test("the server cancels the job of an aborted stream", { timeout: 30000 }, async () => {
  const endless = { ...text, model: chat.BASE, max_tokens: 20000, ignore_eos: true, stream: true };
  const { data: stream, response } = await client.chat.completions.create(endless).withResponse();
  const id = response.headers.get("x-lorikeet-job");
  for await (const chunk of stream) {
    if (chunk.choices[0].delta.content) stream.controller.abort();
  }
  let state = "running";
  while (state === "running") {
    await setTimeout(200);
    // A request for the job itself would count as its client that comes back.
    const { data } = await client.get("/jobs");
    state = data.find((job) => job.id === id).state;
  }
  assert.equal(state, "cancelled");
});

test("errors have the types of the client", async () => {
  await assert.rejects(client.chat.completions.create({ ...text, model: "absent" }), OpenAI.NotFoundError);
  await assert.rejects(
    client.chat.completions.create({ ...text, temperature: -1 }),
    (error) => error instanceof OpenAI.BadRequestError && error.param === "temperature",
  );
  const stranger = new OpenAI({ apiKey: "another key", maxRetries: 0 });
  await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
});

// SPDX-License-Identifier: Apache-2.0
// run-tests: seconds=300
//
// OpenAI's client against the server as it is started from the command line, with a small random model: what it says
// makes no sense, but how it says it must be what the client expects.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import OpenAI from "openai";

const build = process.env.BUILD ?? "build";
const sovereign = process.env.SOVEREIGN ?? join(build, "sovereign");
const KEY = "key-of-the-test";
const WAIT_MS = 60000;
const USER = [{ role: "user", content: "How are you?" }];
const LONG = { model: "tiny", prompt: "a", max_tokens: 8000, ignore_eos: true };

let folder, server, url, client;

// Serves the model with a rubric of words that it knows; returns the process and its address.
async function serve(...flags) {
  const model = join(folder, "m.gguf"), rubric = join(folder, "rubric.json");
  const one = { question: "Is it?", yes: ["y"], no: ["n"] };
  const names = ["truthfulness", "trustworthiness", "justice", "excellence", "wisdom", "compassion", "patience", "gratitude"];
  writeFileSync(rubric, JSON.stringify({ dimensions: Object.fromEntries(names.map(name => [name, one])) }));
  const child = spawn(sovereign, ["serve", "--model", model, "--model-name", "tiny", "--port", "0", "--ctx", "8192",
    "--rubric", rubric, ...flags], { stdio: ["ignore", "ignore", "pipe"] });
  const address = await new Promise((resolve, reject) => {
    const lines = createInterface({ input: child.stderr }), said = [];
    lines.on("line", line => {
      said.push(line);
      const found = line.match(/serving .* on (http:\/\/[^ "]*)/);
      if (found) resolve(found[1]);
    });
    child.on("exit", () => reject(new Error("the server ended:\n" + said.join("\n"))));
  });
  return [child, address];
}

async function end(child) {
  if (!child || child.exitCode !== null) return;
  const ended = new Promise(resolve => child.on("exit", resolve));
  child.kill("SIGTERM");
  assert.equal(await ended, 0);
}

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "sovereign-node-"));
  const model = join(folder, "m.gguf"), keys = join(folder, "keys");
  execFileSync(join(build, "mkmodel"), ["--arch", "llama", "--dim", "128", "--layers", "4", "--heads", "4",
    "--kv-heads", "2", "--ffn", "256", "--type", "q8_0", "--seed", "7", "--ctx", "8192", "--vocab-bytes", "512", model]);
  writeFileSync(keys, KEY + "\n", { mode: 0o600 });
  [server, url] = await serve("--api-key-file", keys);
  client = new OpenAI({ baseURL: url + "/v1", apiKey: KEY, maxRetries: 0, timeout: WAIT_MS });
});

after(async () => {
  await end(server);
  if (folder) rmSync(folder, { recursive: true });
});

async function metric(name) {
  const response = await fetch(url + "/metrics", { headers: { Authorization: "Bearer " + KEY } });
  const found = (await response.text()).match(new RegExp("^" + name + " (.*)$", "m"));
  assert.ok(found, name);
  return Number(found[1]);
}

async function awaitMetric(name, value) {
  const until = Date.now() + WAIT_MS;
  while (await metric(name) !== value) assert.ok(Date.now() < until, `${name} does not become ${value}`);
}

test("chat", async () => {
  const answer = await client.chat.completions.create({ model: "tiny", messages: USER, max_tokens: 16, seed: 1 });
  assert.equal(answer.object, "chat.completion");
  assert.equal(answer.model, "tiny");
  assert.equal(answer.choices[0].message.role, "assistant");
  assert.equal(typeof answer.choices[0].message.content, "string");
  assert.ok(["stop", "length"].includes(answer.choices[0].finish_reason));
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
  assert.ok(answer._request_id.startsWith("req_"));
});

test("chat, streamed: the same text in pieces, then the usage", async () => {
  const request = { model: "tiny", messages: USER, max_tokens: 48, seed: 2 };
  const whole = await client.chat.completions.create(request);
  const stream = await client.chat.completions.create({ ...request, stream: true, stream_options: { include_usage: true } });
  let text = "", finish = null, usage = null, chunks = 0;
  for await (const chunk of stream) {
    chunks++;
    assert.equal(chunk.object, "chat.completion.chunk");
    text += chunk.choices[0]?.delta?.content ?? "";
    finish = chunk.choices[0]?.finish_reason ?? finish;
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(finish, whole.choices[0].finish_reason);
  assert.deepEqual([usage.prompt_tokens, usage.completion_tokens],
    [whole.usage.prompt_tokens, whole.usage.completion_tokens]);
  assert.ok(chunks > 3);
});

test("the client's own streaming helper", async () => {
  const runner = client.chat.completions.stream({ model: "tiny", messages: USER, max_tokens: 24, seed: 3, n: 1 });
  let seen = "";
  runner.on("content", delta => { seen += delta; });
  const final = await runner.finalChatCompletion();
  assert.equal(final.choices[0].message.content, seen);
  assert.equal(final.choices[0].message.role, "assistant");
});

test("choices, logprobs, content in parts, the developer role", async () => {
  const answer = await client.chat.completions.create({
    model: "tiny", n: 2, seed: 4, max_completion_tokens: 5, logprobs: true, top_logprobs: 2,
    messages: [{ role: "developer", content: "Be brief." },
      { role: "user", content: [{ type: "text", text: "How are " }, { type: "text", text: "you?" }] }],
  });
  assert.deepEqual(answer.choices.map(c => c.index), [0, 1]);
  for (const choice of answer.choices)
    for (const entry of choice.logprobs.content) {
      assert.equal(entry.top_logprobs.length, 2);
      assert.ok(entry.logprob <= 0);
      assert.ok(entry.bytes.length > 0);
    }
});

test("completions, whole and streamed", async () => {
  const request = { model: "tiny", prompt: ["One", "Two"], max_tokens: 8, seed: 5, logprobs: 1, echo: true };
  const whole = await client.completions.create(request);
  assert.equal(whole.object, "text_completion");
  assert.equal(whole.choices.length, 2);
  assert.ok(whole.choices[1].text.startsWith("Two"));
  assert.equal(whole.choices[0].logprobs.tokens.length, whole.choices[0].logprobs.token_logprobs.length);
  assert.equal(whole.choices[0].logprobs.token_logprobs[0], null);
  const texts = ["", ""];
  for await (const chunk of await client.completions.create({ ...request, stream: true }))
    texts[chunk.choices[0].index] += chunk.choices[0].text;
  assert.deepEqual(texts, whole.choices.map(c => c.text));
});

test("models", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.deepEqual(ids, ["tiny"]);
  assert.equal((await client.models.retrieve("tiny")).object, "model");
  await assert.rejects(client.models.retrieve("other"), error => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.equal(error.code, "model_not_found");
    return true;
  });
});

const SCORED = { model: "tiny", messages: USER, max_tokens: 8, seed: 1, ihsan: true };

test("scores, beside what the client knows", async () => {
  const { choices } = await client.chat.completions.create(SCORED);
  assert.equal(Object.keys(choices[0].ihsan.scores).length, 8);
  assert.equal(choices[0].ihsan.gate.verdict, "off");
  const stream = client.chat.completions.stream(SCORED);
  assert.equal(await stream.finalContent(), choices[0].message.content);
  const plain = await client.chat.completions.create({ ...SCORED, ihsan: false });
  assert.equal(plain.choices[0].message.content, choices[0].message.content);
  assert.equal("ihsan" in plain.choices[0], false);
});

test("an answer that the gate withholds", async () => {
  const [child, address] = await serve("--gate", "enforce", "--gate-minimum", "1");
  try {
    const strict = new OpenAI({ baseURL: address + "/v1", apiKey: "none", maxRetries: 0, timeout: WAIT_MS });
    await assert.rejects(strict.chat.completions.create(SCORED),
      error => error instanceof OpenAI.PermissionDeniedError && error.code === "answer_withheld");
    let finish = null, text = "";
    for await (const chunk of await strict.chat.completions.create({ ...SCORED, stream: true })) {
      text += chunk.choices[0]?.delta?.content ?? "";
      finish = chunk.choices[0]?.finish_reason ?? finish;
    }
    assert.deepEqual([finish, text], ["content_filter", ""]);
  } finally {
    await end(child);
  }
});

test("errors are of the classes that clients catch, and name the field", async () => {
  const chat = body => client.chat.completions.create({ model: "tiny", messages: USER, ...body });
  const cases = [
    [{ temperature: -1 }, "temperature"],
    [{ messages: [] }, "messages"],
    [{ messages: [{ role: "wizard", content: "x" }] }, "messages[0].role"],
    [{ tools: [{ type: "function", function: { name: "f" } }] }, "tools"],
    [{ response_format: { type: "json_object" } }, "response_format.type"],
    [{ messages: [{ role: "user", content: "word ".repeat(20000) }] }, "messages"],
  ];
  for (const [body, param] of cases)
    await assert.rejects(chat(body), error => {
      assert.ok(error instanceof OpenAI.BadRequestError, String(error));
      assert.equal(error.status, 400);
      assert.equal(error.param, param);
      assert.ok(error.requestID.startsWith("req_"));
      return true;
    });
  await assert.rejects(chat({ messages: [{ role: "user", content: "word ".repeat(20000) }] }),
    error => error.code === "context_length_exceeded" && /8192/.test(error.message));
});

test("a wrong key", async () => {
  const stranger = new OpenAI({ baseURL: url + "/v1", apiKey: "guess", maxRetries: 0 });
  await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
});

test("an abort in the middle of a stream frees the sequence", async () => {
  const before = await metric("sovereign_sequences_cancelled_total");
  const stream = await client.completions.create({ ...LONG, stream: true });
  let chunks = 0;
  for await (const chunk of stream) {
    assert.equal(chunk.object, "text_completion");
    if (++chunks === 3) {
      assert.equal(await metric("sovereign_requests_running"), 1);
      stream.controller.abort();
    }
  }
  await awaitMetric("sovereign_requests_running", 0);
  await awaitMetric("sovereign_kv_pages_used", 0);
  assert.equal(await metric("sovereign_sequences_cancelled_total"), before + 1);
});

test("an abort of a request that is not streamed frees the sequence", async () => {
  const abort = new AbortController();
  const answer = client.completions.create(LONG, { signal: abort.signal });
  const rejected = assert.rejects(answer, OpenAI.APIUserAbortError);
  await awaitMetric("sovereign_requests_running", 1);
  abort.abort();
  await rejected;
  await awaitMetric("sovereign_requests_running", 0);
});

test("many at once", async () => {
  const answers = await Promise.all(Array.from({ length: 24 }, (_, i) => client.chat.completions.create(
    { model: "tiny", messages: [{ role: "user", content: "Number " + i % 3 }], max_tokens: 12, seed: i % 3 })));
  for (let i = 3; i < answers.length; i++)
    assert.equal(answers[i].choices[0].message.content, answers[i % 3].choices[0].message.content);
});

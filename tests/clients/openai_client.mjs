// OpenAI's own JavaScript client against `bd3 serve`: one line for each check; exit code 1 where one fails. Arguments as those of
// openai_client.py. It stands beside its node_modules.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { State } from "./state.mjs";

const ENDLESS = 1_000_000;
const servers = Object.fromEntries(process.argv.slice(2).map((argument) => argument.split(/=(.*)/s)));
const client = (server, apiKey = "none", maxRetries = 0) =>
  new OpenAI({ baseURL: servers[server] + "/v1", apiKey, maxRetries, timeout: 120_000 });
const complete = (api, fields = {}, options = {}) =>
  api.completions.create({ model: "tiny", prompt: "Once upon a time", max_tokens: 24, seed: 1, ...fields }, options);
const get = async (server, path) => (await fetch(servers[server] + path)).text();

async function gauge(server, name) {
  const line = (await get(server, "/metrics")).split("\n").find((line) => line.startsWith(name + " "));
  return Number(line.split(" ")[1]);
}

/** Fields of a request that ends late. */
async function endless(server) {
  const { eos } = JSON.parse(await get(server, "/bd3/model"));
  return { max_tokens: ENDLESS, logit_bias: { [eos]: -100 } };
}

async function all(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const textOf = (chunks) => chunks.flatMap((chunk) => chunk.choices.map((choice) => choice.text)).join("");

async function raised(kind, promise) {
  const error = await promise.then(() => null, (error) => error);
  assert.ok(error instanceof kind, `${kind.name} expected, found ${error}`);
  return error;
}

const plain = {
  async models() {
    const api = client("plain");
    assert.deepEqual((await api.models.list()).data.map((model) => model.id), ["tiny"]);
    assert.equal((await api.models.retrieve("tiny")).owned_by, "bd3");
  },

  async completion() {
    const { choices, usage } = await complete(client("plain"));
    assert.ok(choices[0].text && choices[0].finish_reason === "length");
    assert.equal(usage.completion_tokens, 24);
    assert.equal(usage.total_tokens, usage.prompt_tokens + 24);
  },

  async stream_with_usage() {
    const api = client("plain");
    const chunks = await all(await complete(api, { stream: true, stream_options: { include_usage: true } }));
    assert.equal(textOf(chunks), (await complete(api)).choices[0].text);
    assert.deepEqual([chunks.at(-1).choices, chunks.at(-1).usage.completion_tokens], [[], 24]);
    assert.ok(chunks.length > 4 && chunks.slice(0, -1).every((chunk) => chunk.usage === null));
  },

  async stop() {
    const api = client("plain");
    const whole = (await complete(api, { temperature: 0 })).choices[0].text;
    const word = whole.trim().split(/\s+/)[8];
    const { text, finish_reason } = (await complete(api, { temperature: 0, stop: [word] })).choices[0];
    assert.deepEqual([text, finish_reason], [whole.slice(0, whole.indexOf(word)), "stop"]);
    assert.equal(textOf(await all(await complete(api, { temperature: 0, stop: word, stream: true }))), text);
  },

  async n_and_seed() {
    const api = client("plain");
    const texts = async (seed) => (await complete(api, { n: 3, seed })).choices.map((choice) => choice.text);
    const first = await texts(7);
    assert.equal(new Set(first).size, 3);
    assert.deepEqual(first, await texts(7));
    assert.notDeepEqual(first, await texts(8));
  },

  async logprobs() {
    const { text, logprobs } = (await complete(client("plain"), { logprobs: 2 })).choices[0];
    assert.equal(logprobs.tokens.join(""), text);
    assert.ok(logprobs.token_logprobs.every((value) => value <= 0));
    // The drawn token stands beside the two most probable ones where it is none of them.
    assert.ok(logprobs.top_logprobs.every((top, i) => [1, 2, 3].includes(Object.keys(top).length) && logprobs.tokens[i] in top));
  },

  async cancel() {
    const api = client("plain");
    const before = await gauge("plain", "bd3_tokens_total");
    const stream = await complete(api, { stream: true, ...(await endless("plain")) });
    let seen = 0;
    for await (const _ of stream) {
      if (++seen < 3) continue;
      assert.equal(await gauge("plain", "bd3_lanes"), 1);
      break;
    }
    const end = Date.now() + 10_000;
    while ((await gauge("plain", "bd3_lanes")) > 0) assert.ok(Date.now() < end, "the lane is still there");
    const written = (await gauge("plain", "bd3_tokens_total")) - before;
    assert.ok(written < ENDLESS, `${written} tokens were written`);
  },

  async chat_without_a_template() {
    const messages = [{ role: "user", content: "Hello" }];
    const asked = client("plain").chat.completions.create({ model: "tiny", messages });
    const error = await raised(OpenAI.BadRequestError, asked);
    assert.deepEqual([error.code, error.param], ["no_chat_template", "model"]);
  },

  async errors() {
    const api = client("plain");
    for (const [field, value] of [["temperature", -1], ["top_p", 2], ["n", 0], ["max_tokens", -1], ["best_of", 2]]) {
      assert.equal((await raised(OpenAI.BadRequestError, complete(api, { [field]: value }))).param, field);
    }
    const wrong = await raised(OpenAI.NotFoundError, complete(api, { model: "gpt-4" }));
    assert.deepEqual([wrong.code, wrong.param], ["model_not_found", "model"]);
    await raised(OpenAI.NotFoundError, api.models.retrieve("gpt-4"));
    const unknown = await raised(OpenAI.BadRequestError, complete(api, { bd3: { blok: 4 } }));
    assert.deepEqual([unknown.code, unknown.param], ["unsupported_parameter", "bd3.blok"]);
  },

  async events() {
    const api = client("plain");
    for (const bd3 of [
      { block: 32, rule: "threshold", threshold: 0.5, alternatives: 3 },
      { block: 8, revise: "remask", revise_threshold: 0.4 },
      { block: 4, revise: "look-back", revise_threshold: 0.2, revise_rounds: 8 },
    ]) {
      const state = new State();
      const fields = { max_tokens: 60, temperature: 1.2, stream: true, bd3: { events: true, ...bd3 } };
      const chunks = await all(await complete(api, fields));
      chunks.flatMap((chunk) => chunk.bd3.trace ?? []).forEach((line) => state.apply(line));
      assert.equal(state.events.at(-1).event, "finished");
      assert.equal(state.text(state.given.length), textOf(chunks));
    }
  },
};

const checks = {
  plain,
  locked: {
    async a_key() {
      const error = await raised(OpenAI.AuthenticationError, complete(client("locked", "wrong")));
      assert.equal(error.code, "invalid_api_key");
      assert.ok((await complete(client("locked", servers.key))).choices[0].text);
    },
  },
  narrow: {
    async a_full_queue() {
      const api = client("narrow");
      const late = { stream: true, ...(await endless("narrow")) };
      const underWay = await complete(api, late);
      await underWay[Symbol.asyncIterator]().next();
      const waiting = await complete(api, late);
      assert.equal((await raised(OpenAI.RateLimitError, complete(api))).code, "queue_full");
      underWay.controller.abort();
      waiting.controller.abort();
      assert.ok((await complete(client("narrow", "none", 5))).choices[0].text);
    },
  },
  chat: {
    async chat() {
      const api = client("chat");
      const model = (await api.models.list()).data[0].id;
      const messages = [{ role: "user", content: "What is the capital of France? Answer in one word." }];
      const ask = (more) => api.chat.completions.create({ model, messages, temperature: 0, max_tokens: 24, ...more });
      const whole = (await ask({})).choices[0];
      assert.match(whole.message.content, /Paris/);
      const chunks = await all(await ask({ stream: true }));
      const parts = chunks.flatMap((chunk) => chunk.choices.map((choice) => choice.delta.content ?? ""));
      assert.equal(parts.join(""), whole.message.content);
    },
  },
};

for (const [server, group] of Object.entries(checks)) {
  for (const [name, check] of Object.entries(server in servers ? group : {})) {
    try {
      await check();
      console.log("ok", name);
    } catch (error) {
      process.exitCode = 1;
      console.log(`FAILED ${name}\n${error.stack}`);
    }
  }
}

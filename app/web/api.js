// Requests to the server that the page came from. Its errors are sentences, and become notices.

import { el, notice } from "./dom.js";

const KEY = "bd3-api-key";

/** An answer that is an error; its message is the server's sentence. */
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

function headers(body) {
  const key = sessionStorage.getItem(KEY);
  return { ...(body ? { "content-type": "application/json" } : {}), ...(key ? { authorization: `Bearer ${key}` } : {}) };
}

async function ask(path, body, signal) {
  const method = body ? "POST" : "GET";
  let answer;
  try {
    answer = await fetch(path, { method, headers: headers(body), body: body && JSON.stringify(body), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server does not answer. Is bd3 serve still running?", 0);
  }
  if (answer.ok) return answer;
  const text = await answer.text();
  let message = text || `${answer.status} ${answer.statusText}`;
  try {
    message = JSON.parse(text).error.message;
  } catch {
    // Not one of the server's own answers: its text says what it is.
  }
  throw new Refused(message, answer.status);
}

/** An answer as JSON: GET, or POST where there is a body. */
export async function json(path, body = null, signal = undefined) {
  return (await ask(path, body, signal)).json();
}

/** The objects of a stream of server-sent events, up to [DONE]. */
export async function* stream(path, body, signal) {
  const answer = await ask(path, body, signal);
  const decoder = new TextDecoder();
  let text = "";
  for await (const bytes of chunks(answer.body.getReader())) {
    text += decoder.decode(bytes, { stream: true });
    const events = text.split(/\r?\n\r?\n/);
    text = events.pop();
    for (const event of events) {
      const data = event.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart()).join("\n");
      if (data === "[DONE]") return;
      if (!data) continue;
      const object = JSON.parse(data);
      if (object.error) throw new Refused(object.error.message, 200);
      yield object;
    }
  }
}

async function* chunks(reader) {
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Shows what went wrong; asks for the key where one is missing. */
export function complain(error) {
  if (error.name === "AbortError") return;
  if (error.status !== 401) {
    notice(error.message);
    return;
  }
  const input = el("input", { type: "password", autocomplete: "off", "aria-label": "API key", placeholder: "API key" });
  const form = el("form.row", {}, input, el("button", { type: "submit" }, "Use this key"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, input.value);
    location.reload();
  });
  notice(error.message, "error", form);
}

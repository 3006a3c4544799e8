// The view Write: a prompt or a conversation, and the canvas that answers it.

import { byId, el, notice } from "./dom.js";
import { Stage } from "./stage.js";
import { readTrace } from "./trace.js";

const ALTERNATIVES = 5;

/** Sets the view up: {shown, changed, stage, open, run}. */
export function writeView(model, settings) {
  const form = byId("write-form");
  const prompt = byId("write-prompt");
  const pattern = byId("write-pattern");
  const stop = form.querySelector(".stop");
  const turns = [];
  let ran = false;
  let rewrites = 0;

  const hint = [el("span.ghost", {}, "Once upon a time"), ...Array.from({ length: 12 }, () => el("span.tok.mask", {}, el("span.m", {}))), el("small", {}, "A canvas of masks. Write, and watch it clear.")];
  const stage = new Stage(byId("write-stage"), {
    model, hint,
    busy: (busy) => { stop.hidden = !busy; },
    opened: (file) => open(file),
    rewrite: (ids, base) => {
      const block = settings.sizeFor(ids.length);
      // Nothing stands before the last block of a text within one.
      const request = settings.request(ids.length > block ? [block] : settings.sizes);
      rewrites += 1;
      const bd3 = { ...request.bd3, block, events: true, alternatives: ALTERNATIVES };
      return stage.run("v1/completions", { ...request, seed: request.seed + rewrites, prompt: ids, max_tokens: 0, bd3 }, base);
    },
  });

  const chatting = () => form.elements.mode.value === "chat";
  const request = () => {
    const { bd3, ...rest } = settings.request();
    const must = pattern.value ? { regex: pattern.value } : {};
    return { ...rest, max_tokens: settings.values.n, bd3: { ...bd3, ...must, events: true, alternatives: ALTERNATIVES } };
  };

  async function write() {
    ran = true;
    rewrites = 0;
    stage.answers = chatting();
    if (!chatting()) {
      await stage.run("v1/completions", { ...request(), prompt: prompt.value });
      return;
    }
    const messages = [...turns, { role: "user", content: prompt.value }];
    const timeline = await stage.run("v1/chat/completions", { ...request(), messages });
    if (timeline.isFinished) answered(messages, stage.text);
  }

  // An answered message stays above; the next one goes on from it.
  function answered(messages, text) {
    const next = el("button", { type: "button", onclick: () => {
      turns.splice(0, turns.length, ...messages, { role: "assistant", content: text });
      next.remove();
      ran = false;
      prompt.value = "";
      prompt.focus();
      drawTurns();
    } }, "Reply");
    form.querySelector(".row .reply")?.remove();
    next.className = "reply";
    stop.after(next);
  }

  function drawTurns() {
    const box = byId("write-turns");
    box.hidden = !chatting() || turns.length === 0;
    box.replaceChildren(...turns.map(({ role, content }) => el(`p.${role}`, {}, el("b", {}, role === "user" ? "You" : model.model), content)));
  }

  async function open(file) {
    const bytes = new Uint8Array(await file.arrayBuffer());
    try {
      const { timeline, cut } = readTrace(file.name, bytes);
      if (!timeline.frames.length) throw new Error(`${file.name}: expected at least one event, found none`);
      stage.open(timeline);
      const sound = `${file.name}: ${timeline.lines.length} lines, every sum and every state agrees.`;
      const end = cut ? " Its last line is not whole and is left out." : timeline.isFinished ? "" : " It ends before the sample does.";
      notice(sound + end, "done");
    } catch (error) {
      notice(error.message);
    }
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    write();
  });
  stop.addEventListener("click", () => stage.stop());
  // A closed field still says what holds.
  byId("write-must").addEventListener("toggle", ({ target }) => { byId("write-must-brief").textContent = target.open ? "" : pattern.value; });
  form.querySelector(".example").addEventListener("click", ({ target }) => {
    pattern.value = target.textContent;
    write();
  });
  byId("write-modes").hidden = !model.chat;
  byId("write-modes").addEventListener("change", () => {
    byId("write-label").textContent = chatting() ? "Message" : "Prompt";
    if (chatting() && prompt.value === "Once upon a time") prompt.value = "";
    ran = false;
    drawTurns();
  });

  return {
    stage, open, run: write,
    changed: () => { if (ran) write(); },
    hidden: () => stage.player.pause(),
  };
}

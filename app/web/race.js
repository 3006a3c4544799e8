// The view Race: one prompt at several block sizes, all on one clock.

import { complain, stream } from "./api.js";
import { Canvas } from "./canvas.js";
import { byId, clearNotices, el, relabel, still } from "./dom.js";
import { Timeline } from "./timeline.js";

// A pass of the first lane is shown for at least so long; what is known and not shown yet, in at most so long; and what is left when
// all is known, too.
const PASS_MS = 45;
const BEHIND_MS = 5000;
const WHOLE_MS = 14000;

/** Sets the view up. */
export function raceView(model, settings) {
  const form = byId("race-form");
  const stop = form.querySelector(".stop");
  const hint = form.querySelector(".hint");
  const about = model.block_sizes.length < 2 ? "This model knows one block size, so it has nobody to race with." : hint.textContent;
  const largest = Math.max(...model.block_sizes);
  let lanes = [];
  let abort = null;
  let ran = false;
  const clock = new Clock(byId("race-bar"), (ms) => lanes.forEach((lane) => lane.draw(ms)));

  const blocks = () => [...new Set([1, settings.values.block, largest])].sort((a, b) => a - b);
  const name = (block) => (block === 1 ? "Autoregressive" : block >= largest ? "Full diffusion" : "Block diffusion");

  async function race() {
    ran = true;
    halt();
    clearNotices("error");
    const mine = new AbortController();
    abort = mine;
    stop.hidden = false;
    const { bd3: { block, ...rest }, ...request } = settings.request(blocks());
    lanes = blocks().map((size) => new Lane(name(size), size, model));
    byId("race-lanes").replaceChildren(...lanes.map((lane) => lane.box));
    const body = { ...request, prompt: byId("race-prompt").value, max_tokens: settings.values.n, blocks: blocks(), bd3: rest };
    try {
      let begun = false;
      for await (const { lane, ms, trace } of stream("bd3/race", body, mine.signal)) {
        if (abort !== mine) return;
        lanes[lane].take(trace, ms);
        const known = Math.min(...lanes.map((each) => each.known));
        clock.reach(known, lanes[0].pace, lanes[0].timeline.isFinished);
        if (!begun && known > 0) clock.begin();
        begun ||= known > 0;
      }
    } catch (error) {
      complain(error);
    }
    if (abort !== mine) return;
    abort = null;
    stop.hidden = true;
    clock.finish(Math.max(...lanes.map((lane) => lane.end)));
  }

  function halt() {
    abort?.abort();
    abort = null;
    stop.hidden = true;
    clock.reset();
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    race();
  });
  stop.addEventListener("click", () => {
    abort?.abort();
  });
  byId("race-lanes").replaceChildren(...blocks().map((size) => new Lane(name(size), size, model).box));

  // What all lanes can't do none does, and that is said.
  function tell() {
    hint.textContent = settings.dropsRevision(blocks()) ? `${about} None looks back: block ${blocks().at(-1)} has no larger one for it.` : about;
  }

  return { run: race, shown: tell, changed: () => {
    tell();
    if (ran) race();
    else byId("race-lanes").replaceChildren(...blocks().map((size) => new Lane(name(size), size, model).box));
  }, hidden: () => clock.pause(), player: clock };
}

/** One block size. */
class Lane {
  constructor(name, block, model) {
    this.model = model;
    this.canvas = new Canvas({ label: `${name}, block ${block}` });
    this.canvas.empty(...Array.from({ length: 14 }, () => el("span.tok.mask", {}, el("span.m", {}))));
    this.timeline = new Timeline();
    this.end = 0;
    this.numbers = el("dl.figures", {});
    this.box = el("section.lane", { "aria-label": `${name}, block ${block}` }, el("header", {}, el("h2", {}, name), el("p", {}, `block ${block}`)), this.canvas.outer, this.numbers);
    this.#figures(0, 0, 0);
  }

  take(trace, ms) {
    for (const line of trace) this.timeline.push(line);
    this.end = ms;
  }

  // Up to where on the clock all is known.
  get known() {
    return this.timeline.isFinished ? Infinity : this.end;
  }

  get pace() {
    const { pass } = this.timeline.head?.state ?? { pass: 0 };
    return pass ? this.end / pass : 0;
  }

  draw(ms) {
    if (!this.timeline.frames.length) return;
    const frame = Math.max(0, this.timeline.frameAt(ms));
    const { state, cells, count } = this.timeline.at(frame);
    const { limit } = this.timeline;
    // What commits a block comes after its last frame has been drawn.
    if (this.drawn !== count) {
      this.drawn = count;
      this.canvas.draw({ state, cells, pieces: this.timeline.pieces, eos: this.model.eos, keep: false, limit, first: 0 });
    }
    const done = this.timeline.isFinished && ms >= this.end;
    this.box.classList.toggle("done", done);
    const known = state.ids.slice(0, limit).filter((id) => id !== state.mask).length - state.given.length;
    this.#figures(state.pass, Math.max(0, known), Math.min(ms, this.end), done);
  }

  #figures(passes, tokens, ms, done = false) {
    const rows = [["passes", passes], ["tokens", tokens], ["seconds", (ms / 1000).toFixed(3)], ["tokens/s", done && ms ? Math.round(tokens / ms * 1000) : "\u2013"]];
    this.numbers.replaceChildren(...rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value)))));
  }
}

/** The one clock of all lanes, slowed down so that passes can be seen. */
class Clock {
  constructor(bar, show) {
    Object.assign(this, { bar, show });
    this.toggle = el("button.icon.play", { type: "button", onclick: () => this.flip() });
    this.slider = el("input.scrub", { type: "range", min: 0, max: 1, value: 0, step: "any", "aria-label": "Time" });
    this.slider.addEventListener("input", () => this.seek(Number(this.slider.value)));
    this.where = el("output.where", {});
    this.slow = el("select", { "aria-label": "Speed" }, [["auto", "slow enough to see"], ["0.02", "1/50"], ["0.1", "1/10"], ["1", "real time"]].map(([value, text]) => el("option", { value }, text)));
    bar.replaceChildren(this.toggle, this.slider, this.where, this.slow);
    this.reset();
  }

  reset() {
    Object.assign(this, { now: 0, limit: 0, end: 0, rate: 1, playing: false, live: false });
    this.#draw();
  }

  reach(limit, pace, first) {
    this.limit = limit;
    if (pace && !first) this.rate = Math.min(1, pace / PASS_MS);
    this.live = true;
  }

  begin() {
    this.play();
  }

  finish(end) {
    Object.assign(this, { end, limit: end, live: false });
    // The whole takes a while that a reader will wait.
    this.rate = Math.min(1, Math.max(this.rate, end / WHOLE_MS));
    if (still()) this.seek(end);
    this.#draw();
  }

  flip() {
    if (this.playing) return this.pause();
    if (!this.live && this.now >= this.end) this.now = 0;
    return this.play();
  }

  play() {
    this.playing = true;
    this.last = performance.now();
    requestAnimationFrame((now) => this.#tick(now));
  }

  pause() {
    this.playing = false;
    this.#draw();
  }

  step(by) {
    this.seek(this.now + by * this.end / 50);
  }

  seek(ms) {
    this.playing = false;
    this.now = Math.max(0, Math.min(ms, this.end || this.limit));
    this.#draw();
  }

  #tick(now) {
    if (!this.playing) return;
    const behind = this.live ? (this.limit - this.now) / BEHIND_MS : 0;
    const rate = this.slow.value === "auto" ? Math.min(1, Math.max(this.rate, behind)) : Number(this.slow.value);
    this.now = Math.min(this.now + Math.max(0, now - this.last) * rate, this.limit);
    this.last = now;
    if (!this.live && this.now >= this.end) this.playing = false;
    this.#draw();
    if (this.playing) requestAnimationFrame((next) => this.#tick(next));
  }

  #draw() {
    const end = this.end || Math.max(this.now, 1);
    const idle = !this.end && !this.live;
    this.bar.classList.toggle("idle", idle);
    for (const control of [this.toggle, this.slider]) control.disabled = idle;
    relabel(this.toggle, this.playing ? "pause" : "play", this.playing ? "Pause" : "Play");
    this.slider.max = end;
    this.slider.value = this.now;
    this.slider.style.setProperty("--done", this.now / end);
    this.where.textContent = `${(this.now / 1000).toFixed(3)} s`;
    this.slider.setAttribute("aria-valuetext", `${(this.now / 1000).toFixed(3)} seconds`);
    this.show(this.now);
  }
}

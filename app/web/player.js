// The clock of a replay, and its bar: play and pause, a slider over the frames, speed. Knows nothing of what a frame shows.

import { el, icon, relabel, still } from "./dom.js";

// A pass is shown for at least so long at speed 1, or nobody could follow a small model.
const LEAST_MS = 55;
const MOST_MS = 1200;
const SPEEDS = [["0.25", "\u00bc\u00d7"], ["0.5", "\u00bd\u00d7"], ["1", "1\u00d7"], ["2", "2\u00d7"], ["4", "4\u00d7"], ["measured", "real time"]];

/** Where a replay stands. `show(frame)` draws; `label(frame)` says it in words. */
export class Player {
  constructor(bar, { show, label }) {
    Object.assign(this, { bar, show, label, timeline: null, frame: 0, playing: false, live: false, speed: "1", rest: 0, last: 0 });
    this.toggle = el("button.icon.play", { type: "button", onclick: () => this.flip() });
    const step = (name, text, by) => el("button.icon.quiet", { type: "button", "aria-label": text, title: text, onclick: () => this.step(by) }, icon(name));
    this.slider = el("input.scrub", { type: "range", min: 0, max: 0, value: 0, step: 1, "aria-label": "Passes" });
    this.slider.addEventListener("input", () => this.seek(Number(this.slider.value)));
    this.where = el("output.where", {});
    this.speeds = el("select", { "aria-label": "Speed" }, SPEEDS.map(([value, text]) => el("option", { value, selected: value === "1" }, text)));
    this.speeds.addEventListener("change", () => { this.speed = this.speeds.value; });
    bar.replaceChildren(step("first", "To the beginning", -Infinity), step("back", "One pass back", -1), this.toggle,
      step("next", "One pass on", 1), this.slider, this.where, this.speeds);
    this.#draw();
  }

  /** Takes another timeline, from its beginning. `live`: more of it is to come. */
  load(timeline, live) {
    Object.assign(this, { timeline, live, frame: 0, rest: 0 });
    if (live || !still()) this.play();
    else this.seek(timeline.last);
  }

  /** The timeline has grown, or has ended. */
  grew(live) {
    this.live = live;
    if (still() && this.playing) this.frame = Math.max(0, this.timeline.last);
    // Where it plays, the next tick draws; a small model sends more events than a screen shows.
    if (!this.playing || !live) this.#draw();
  }

  get atEnd() {
    return !this.timeline || this.frame >= this.timeline.last;
  }

  flip() {
    if (this.playing) return this.pause();
    if (this.atEnd && !this.live) this.frame = 0;
    return this.play();
  }

  play() {
    if (!this.timeline) return;
    this.playing = true;
    this.last = performance.now();
    this.#draw();
    requestAnimationFrame((now) => this.#tick(now));
  }

  pause() {
    this.playing = false;
    this.#draw();
  }

  step(by) {
    this.seek(this.frame + by);
  }

  seek(frame) {
    if (!this.timeline) return;
    this.playing = false;
    this.frame = Math.max(0, Math.min(frame, this.timeline.last));
    this.#draw();
  }

  #tick(now) {
    if (!this.playing) return;
    this.rest += now - this.last;
    this.last = now;
    while (!this.atEnd) {
      const wait = this.#wait();
      if (this.rest < wait) break;
      this.rest -= wait;
      this.frame += 1;
    }
    if (this.atEnd) {
      this.rest = 0;
      if (!this.live) this.playing = false;
    }
    this.#draw();
    if (this.playing) requestAnimationFrame((next) => this.#tick(next));
  }

  // Milliseconds until the next frame.
  #wait() {
    const real = this.timeline.ms(this.frame + 1) - this.timeline.ms(this.frame);
    // What is arriving now has been waited for already.
    const paced = this.live ? LEAST_MS : Math.min(Math.max(real, LEAST_MS), MOST_MS);
    return this.speed === "measured" ? (this.live ? 0 : real) : paced / Number(this.speed);
  }

  #draw() {
    const last = Math.max(0, this.timeline?.last ?? 0);
    this.frame = Math.min(this.frame, last);
    this.bar.classList.toggle("idle", !this.timeline);
    for (const control of this.bar.querySelectorAll("button, input")) control.disabled = !this.timeline;
    relabel(this.toggle, this.playing ? "pause" : "play", this.playing ? "Pause" : "Play");
    this.slider.max = last;
    this.slider.value = this.frame;
    this.slider.style.setProperty("--done", last ? this.frame / last : 0);
    if (!this.timeline?.head) return;
    const words = this.label(this.frame);
    if (this.where.textContent !== words) {
      this.where.textContent = words;
      this.slider.setAttribute("aria-valuetext", words);
    }
    this.show(this.frame);
  }
}

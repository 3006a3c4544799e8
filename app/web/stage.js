// A canvas with its clock: runs a sample, replays it, lets the reader take tokens out, and keeps it as a file.

import { complain, stream } from "./api.js";
import { Canvas } from "./canvas.js";
import { clearNotices, download, el, notice, say } from "./dom.js";
import { Player } from "./player.js";
import { Contradiction } from "./state.js";
import { Timeline } from "./timeline.js";
import { hideTip } from "./tip.js";
import { writeTrace } from "./trace.js";

const SAY_EVERY = 2500;

/** Everything below the form of a view. `rewrite(ids, base)` writes anew where ids are masks; `busy(bool)` hears of runs. */
export class Stage {
  constructor(box, { model, rewrite = null, busy, opened, hint }) {
    Object.assign(this, { model, rewrite, busy, timeline: null, abort: null, keep: false, said: 0, sayAt: 0, before: [], answers: false });
    this.figures = el("dl.figures", {});
    this.about = el("p.about", {});
    this.canvas = new Canvas({ chosen: rewrite && ((positions) => this.#chosen(positions)) });
    this.selection = el("div.selection", { hidden: true, role: "group", "aria-label": "Selected tokens" });
    const bar = el("div.transport", { role: "group", "aria-label": "Replay" });
    box.replaceChildren(
      el("div.stage-head", {}, this.about, this.figures), this.canvas.outer, this.selection, bar, legend(), this.#actions(opened), keysHint(rewrite !== null));
    this.player = new Player(bar, { show: (frame) => this.#show(frame), label: (frame) => this.#label(frame) });
    this.canvas.empty(...hint);
  }

  /** Begins a request whose answer is a sample's events; `base`: cells and pieces from which it goes on, and what stood `before`. */
  async run(path, body, base = null) {
    this.stop();
    clearNotices("error");
    clearNotices("done");
    const abort = new AbortController();
    this.abort = abort;
    this.busy(true);
    const timeline = new Timeline(base);
    try {
      for await (const chunk of stream(path, { ...body, stream: true }, abort.signal)) {
        // What came before it was stopped stays as it was then.
        if (abort.signal.aborted) break;
        for (const line of chunk.bd3?.trace ?? []) timeline.push(line);
        if (timeline.frames.length === 0) continue;
        if (this.timeline !== timeline) {
          this.before = base ? [...this.before, base.before] : [];
          this.#load(timeline, true);
        } else {
          this.player.grew(true);
        }
      }
    } catch (error) {
      complain(error instanceof Contradiction ? new Error(`The stream contradicts itself. ${error.message}`) : error);
    }
    if (this.abort === abort) {
      this.abort = null;
      this.busy(false);
    }
    if (this.timeline === timeline) this.player.grew(false);
    return timeline;
  }

  /** Ends a request; what has come stays. */
  stop() {
    this.abort?.abort();
    this.abort = null;
    this.busy(false);
  }

  /** Shows a sample that was recorded. */
  open(timeline) {
    this.stop();
    this.before = [];
    this.answers = false;
    this.#load(timeline, false);
  }

  /** The text of the sample, as it ends. */
  get text() {
    const { state, pieces } = this.#last();
    return pieces.join(state.text.slice(state.own));
  }

  /** Re-masks what is selected and lets the model write there again. */
  remask() {
    const chosen = this.canvas.selected;
    if (!chosen.size || !this.rewrite) return;
    const { state, cells } = this.timeline.at(this.player.frame);
    const { mask } = this.timeline.header;
    const ids = state.ids.slice(0, this.timeline.limit).map((id, position) => (chosen.has(position) ? mask : id));
    const before = { timeline: this.timeline, frame: this.player.frame };
    this.canvas.clearSelection();
    this.rewrite(ids, { cells: cells.list.slice(), pieces: this.timeline.pieces, before });
  }

  /** Goes back to what stood before the last rewrite. */
  undo() {
    const before = this.before.pop();
    if (!before) return;
    this.stop();
    this.#load(before.timeline, false);
    this.player.seek(before.frame);
  }

  #last() {
    return { ...this.timeline.at(this.timeline.last), pieces: this.timeline.pieces };
  }

  #load(timeline, live) {
    this.timeline = timeline;
    this.said = timeline.head.state.given.length;
    this.canvas.clearSelection();
    this.canvas.shrink();
    hideTip();
    const { settings, model, seed } = timeline.header;
    const options = settings?.options ?? {};
    const rule = typeof options.rule === "string" ? options.rule : Object.keys(options.rule ?? {})[0];
    this.about.textContent = [model, options.block && `block ${options.block}`, rule?.replaceAll("_", "-"), `seed ${seed}`].filter(Boolean).join(" \u00b7 ");
    this.player.load(timeline, live);
    for (const button of this.buttons) button.disabled = false;
    this.undoButton.hidden = this.before.length === 0;
  }

  #show(frame) {
    const { timeline, keep } = this;
    const { state, cells, ms } = timeline.at(frame);
    this.canvas.draw({ state, cells, pieces: timeline.pieces, eos: this.model.eos, keep, limit: timeline.limit, first: this.answers ? state.own : 0 });
    const known = state.ids.slice(0, timeline.limit).filter((id) => id !== state.mask).length;
    const gaps = state.given.filter((id) => id === state.mask).length;
    const fixed = gaps ? state.given.length - gaps : state.given.length;
    const tokens = Math.max(0, known - Math.min(fixed, known));
    const figure = (name, value) => [el("dt", {}, name), el("dd", {}, value)];
    const rows = [
      ["passes", String(state.pass)], ["tokens", String(tokens)], ["a pass", state.pass ? (tokens / state.pass).toFixed(2) : "\u2013"],
      ["seconds", (ms / 1000).toFixed(ms < 10000 ? 2 : 1)], ["tokens/s", ms > 0 ? (tokens / (ms / 1000)).toFixed(0) : "\u2013"],
    ];
    this.figures.replaceChildren(...rows.map(([name, value]) => el("div", {}, figure(name, value))));
    if (this.player.playing || this.player.atEnd) this.#speak(state);
  }

  // Committed text is heard as it comes, some of it at a time.
  #speak(state) {
    const now = performance.now();
    const ended = this.player.atEnd && this.timeline.isFinished;
    if (state.text.length < this.said) this.said = state.text.length;
    if (state.text.length === this.said || (!ended && now - this.sayAt < SAY_EVERY)) return;
    say(this.timeline.pieces.join(state.text.slice(this.said)));
    this.said = state.text.length;
    this.sayAt = now;
  }

  #label(frame) {
    const { timeline } = this;
    const passes = timeline.head.state.pass;
    const { state } = timeline.at(frame);
    return `pass ${state.pass} of ${passes}${this.player.live ? "+" : ""}`;
  }

  #chosen(positions) {
    this.selection.hidden = positions.length === 0;
    if (!positions.length) return;
    const { state } = this.timeline.at(this.player.frame);
    const text = this.timeline.pieces.join(positions.map((position) => state.ids[position])).trim();
    const shown = text.length > 48 ? `${text.slice(0, 46)}\u2026` : text;
    this.player.pause();
    this.selection.replaceChildren(
      el("p", {}, el("b", {}, `${positions.length} ${positions.length === 1 ? "token" : "tokens"}`), ` \u201c${shown}\u201d`),
      el("button.primary", { type: "button", onclick: () => this.remask() }, "Re-mask and rewrite", el("kbd", {}, "M")),
      el("button.quiet", { type: "button", onclick: () => this.canvas.clearSelection() }, "Clear"));
  }

  #actions(opened) {
    const save = el("button.quiet", { type: "button", disabled: true, onclick: () => this.#download() }, "Download trace");
    const copy = el("button.quiet", { type: "button", disabled: true, onclick: () => this.#copy() }, "Copy text");
    this.buttons = [save, copy];
    this.undoButton = el("button.quiet", { type: "button", hidden: true, onclick: () => this.undo() }, "Undo rewrite");
    const file = el("input", { type: "file", accept: ".jsonl,.json,.txt", class: "sr", tabindex: -1, "aria-hidden": "true" });
    file.addEventListener("change", async () => {
      if (file.files[0]) await opened(file.files[0]);
      file.value = "";
    });
    const open = el("button.quiet", { type: "button", onclick: () => file.click() }, "Open trace");
    const keep = el("input", { type: "checkbox" });
    keep.addEventListener("change", () => {
      this.keep = keep.checked;
      if (this.timeline) this.#show(this.player.frame);
    });
    return el("div.row.actions", {}, this.undoButton, save, open, file, copy, el("label.check", {}, keep, "Keep struck tokens"));
  }

  #download() {
    const { header, lines } = this.timeline;
    download(`${header.model}-${header.seed}.jsonl`, writeTrace(lines), "application/jsonl");
  }

  async #copy() {
    try {
      await navigator.clipboard.writeText(this.text);
      notice("The text is copied.", "done");
    } catch {
      notice("This browser lets no page copy here; select the text and copy it yourself.");
    }
  }
}

function keysHint(rewrites) {
  const key = (name) => el("kbd", {}, name);
  return el("p.hint.keys-hint", {}, key("Space"), " pauses, ", key("\u2190"), " ", key("\u2192"), " go pass by pass",
    rewrites ? [". Select tokens with the mouse, or in the canvas with ", key("Shift"), " and arrows; ", key("M"), " re-masks them."] : ".");
}

/** What colours and marks mean. */
export function legend() {
  const step = (level, text) => el("li", {}, el("span.tok.token", { "data-c": level }, el("span.w", {}, text)));
  return el("ul.legend", { "aria-label": "Legend: how sure the model was" },
    el("li.title", {}, "how sure"), step(0, "< 10 %"), step(1, "< 30 %"), step(2, "< 60 %"), step(3, "< 90 %"), step(4, "surer"),
    el("li", {}, el("span.tok.given", {}, "given")), el("li", {}, el("span.tok.mask", {}, el("span.m", {})), "mask"),
    el("li", {}, el("del.struck", {}, el("span", {}, "struck"), el("small", {}, "reason"))));
}

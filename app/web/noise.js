// The view Noise: a text at rising noise, one panel for each kind.

import { complain, json } from "./api.js";
import { byId, clearNotices, el, relabel, still } from "./dom.js";
import { Pieces, confidence } from "./text.js";

const LEVELS = 21;
const LEVEL_MS = 260;
const ABOUT = {
  mask: "tokens become masks",
  uniform: "tokens become any other",
  semantic: "tokens become near ones, by the model's embeddings",
  mixed: "masks and any others, mixed",
};

/** Sets the view up. */
export function noiseView() {
  const form = byId("noise-form");
  const bar = byId("noise-bar");
  const kinds = byId("noise-kinds");
  let answer = null;
  let pieces = null;
  let level = 8;
  let timer = 0;

  const toggle = el("button.icon.play", { type: "button", onclick: () => (timer ? pause() : play()) });
  const slider = el("input.scrub", { id: "noise-level", type: "range", min: 0, max: LEVELS - 1, step: 1, value: level, "aria-label": "Noise level" });
  const where = el("output.where", { for: "noise-level" });
  slider.addEventListener("input", () => {
    const next = slider.valueAsNumber;
    pause();
    show(next);
  });
  bar.replaceChildren(toggle, slider, where);

  async function run() {
    clearNotices("error");
    try {
      const seed = byId("noise-seed").valueAsNumber || 0;
      answer = await json("bd3/noise", { text: byId("noise-text").value, levels: LEVELS, seed });
    } catch (error) {
      complain(error);
      return;
    }
    pieces = new Pieces();
    answer.pieces.forEach((piece) => pieces.add(piece));
    bar.hidden = false;
    show(level);
  }

  function show(next) {
    level = next;
    slider.value = level;
    slider.style.setProperty("--done", level / (LEVELS - 1));
    relabel(toggle, timer ? "pause" : "play", timer ? "Pause" : "Play");
    const t = level / (LEVELS - 1);
    where.textContent = `noise ${t.toFixed(2)}`;
    slider.setAttribute("aria-valuetext", where.textContent);
    const names = [...new Set(answer.rows.map(({ kind }) => kind))];
    kinds.replaceChildren(...names.map((kind) => {
      const rows = answer.rows.filter((row) => row.kind === kind);
      return panel(rows.reduce((best, row) => (Math.abs(row.t - t) < Math.abs(best.t - t) ? row : best)));
    }));
  }

  function panel({ kind, changed, masked, ids, cosines }) {
    const spelled = pieces.spell(answer.ids);
    const tokens = ids.map((id, index) => token(id, index, cosines?.[index], spelled[index]));
    const counts = `${changed} of ${ids.length} changed${masked && masked !== changed ? `, ${masked} masked` : ""}`;
    const share = el("span.bar", {});
    share.style.setProperty("--share", changed / ids.length);
    return el("section.kind", { "aria-label": kind }, el("header", {}, el("h2", {}, kind), el("p", {}, ABOUT[kind] ?? "")),
      el("p.noised", {}, tokens), el("p.counts", {}, share, counts));
  }

  function token(id, index, cosine, was) {
    const own = answer.ids[index];
    if (id === own) return el("span.tok.still", {}, was);
    const text = pieces.join([id]);
    const near = cosine === undefined || cosine === null ? "" : `, cosine ${cosine.toFixed(2)}`;
    const title = `was \u201c${was.trim()}\u201d${near}`;
    if (text === "") return el("span.tok.mask", { title, "aria-label": "mask" }, was.match(/^\s*/)[0], el("span.m", {}));
    const [, space, word] = (text.includes("\ufffd") ? pieces.show(id) : text).match(/^(\s*)([^]*)$/);
    // Nearness on the scale of confidence; a replacement that has none is as far as can be.
    const step = near ? confidence(Math.max(0, cosine)) : 0;
    return el("span.tok.token", { title, "data-c": step }, space, el("span.w", {}, word || "\u2423"));
  }

  function play() {
    if (level >= LEVELS - 1) level = 0;
    timer = setInterval(() => {
      if (level >= LEVELS - 1) pause();
      else show(level + 1);
    }, still() ? LEVEL_MS * 4 : LEVEL_MS);
    show(level);
  }

  function pause() {
    clearInterval(timer);
    timer = 0;
    if (answer) show(level);
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });

  const player = {
    flip: () => answer && (timer ? pause() : play()),
    step: (by) => { if (answer) { pause(); show(Math.max(0, Math.min(LEVELS - 1, level + by))); } },
  };
  kinds.after(el("p.hint", {}, "Colours tell how near a replacement is to what stood there, by the cosine of their embeddings; the draws are the same at every level, so noise only grows."));
  return { run, shown: () => { if (!answer) run(); }, changed: () => {}, hidden: pause, player };
}

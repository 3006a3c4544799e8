// The view Infill: a text with holes, and the canvas where they fill.

import { byId, el } from "./dom.js";
import { Stage } from "./stage.js";

/** Sets the view up; `open` takes a trace file. */
export function infillView(model, settings, open) {
  const form = byId("infill-form");
  const text = byId("infill-text");
  const stop = form.querySelector(".stop");
  let ran = false;
  const hint = [el("span.ghost", {}, "There was a"), ...Array.from({ length: 4 }, () => el("span.tok.mask", {}, el("span.m", {}))), el("span.ghost", {}, "who lived in"),
    ...Array.from({ length: 3 }, () => el("span.tok.mask", {}, el("span.m", {}))), el("small", {}, "Each hole sees the text on both sides, as far as its block reaches.")];
  const stage = new Stage(byId("infill-stage"), {
    model, hint, opened: open,
    busy: (busy) => { stop.hidden = !busy; },
  });
  // The block size is the smallest that holds the text until the reader has moved the slider here.
  let own = null;

  function fill() {
    ran = true;
    const { bd3, ...rest } = settings.request(own === null ? settings.sizes : []);
    const { block, ...knobs } = bd3;
    const size = own === null ? {} : { block };
    return stage.run("v1/completions", { ...rest, max_tokens: 0, bd3: { ...knobs, ...size, infill: text.value, events: true, alternatives: 5 } });
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    fill();
  });
  stop.addEventListener("click", () => stage.stop());
  byId("infill-hole").addEventListener("click", () => {
    const { selectionStart: from, selectionEnd: to, value } = text;
    const space = from > 0 && !/\s/.test(value[from - 1]) ? " " : "";
    text.setRangeText(`${space}___`, from, to, "end");
    text.focus();
  });

  let shownBlock = settings.values.block;
  return {
    stage, run: fill,
    shown: () => { shownBlock = settings.values.block; },
    changed: () => {
      if (settings.values.block !== shownBlock) own = settings.values.block;
      if (ran) fill();
    },
    hidden: () => stage.player.pause(),
  };
}

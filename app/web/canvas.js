// Draws what stands: committed blocks, the open block, what was struck or taken back. A token is an option of a list, so that keys
// reach each of them, and a selection of several can be re-masked.

import { struck } from "./cells.js";
import { el, later } from "./dom.js";
import { confidence, percent, REASONS } from "./text.js";
import { hideTip, showTip } from "./tip.js";

// How many passes a struck token and text that was taken back stay in sight.
const STRUCK_PASSES = 8;
const FADING_PASSES = 2;
const REASON_WORDS = { unlikely: "unlikely", better: "a better one", schedule: "schedule", asked: "asked", loop: "loop", cleanup: "cleanup" };

/** A box, `outer`, that shows one canvas. `chosen(positions)` hears what the reader selects. */
export class Canvas {
  constructor({ chosen = null, label = "Canvas" } = {}) {
    const box = el("div", {});
    this.box = box;
    // What stands in the page: as tall as the canvas has been.
    this.outer = el("div.outer", {}, box);
    new ResizeObserver(() => this.#keepHeight()).observe(box);
    this.chosen = chosen;
    this.rows = [];
    this.blocks = new Map();
    this.view = null;
    this.active = 0;
    this.anchor = null;
    this.selected = new Set();
    box.classList.add("canvas");
    for (const [name, value] of Object.entries({ role: "listbox", "aria-label": label, "aria-multiselectable": chosen ? "true" : "false" })) {
      box.setAttribute(name, value);
    }
    box.tabIndex = -1;
    box.addEventListener("keydown", (event) => this.#key(event));
    box.addEventListener("focusin", (event) => this.#point(event.target, true));
    box.addEventListener("focusout", hideTip);
    // Who drags does not ask.
    box.addEventListener("pointerover", (event) => (event.buttons ? hideTip() : this.#point(event.target, false)));
    box.addEventListener("pointerleave", hideTip);
    if (chosen) document.addEventListener("selectionchange", later(() => this.#dragged(), 60));
  }

  /** Draws a moment: {state, cells, pieces, eos, keep, limit, first}. What stands before `first` is not shown. Positions from `limit` on are drawn by the model, to be cut off. */
  draw(view) {
    this.view = view;
    const list = view.cells.list.slice(0, view.limit);
    const texts = view.pieces.spell(list.map((cell) => (cell.kind === "mask" ? -1 : cell.id)));
    const blocks = [];
    list.forEach((cell, position) => {
      const node = this.#row(cell, position, texts[position]);
      const name = this.#blockOf(cell, position);
      if (blocks.at(-1)?.name !== name) blocks.push({ name, open: this.#isOpen(position), nodes: [] });
      blocks.at(-1).nodes.push(node);
    });
    this.rows.length = list.length;
    this.box.classList.toggle("answer", view.first > 0);
    const fading = this.#fading();
    if (fading) {
      const behind = blocks.findIndex((block) => block.open);
      blocks.splice(behind < 0 ? blocks.length : behind, 0, fading);
    }
    this.#arrange(blocks);
    this.#spare(view.cells.list.slice(view.limit));
    this.#keepTabStop();
  }

  // Rows of the last block behind the text: how many, and how many of them have been drawn for nothing.
  #spare(cells) {
    if (!cells.length) return;
    const drawn = cells.filter((cell) => cell.kind === "token").length;
    const text = `and ${cells.length} ${cells.length === 1 ? "row" : "rows"} past the end${drawn ? `, ${drawn} drawn` : ""}`;
    this.box.append(el("span.spare", { title: "A block is drawn whole; what lies past the asked length is cut off." }, text));
  }

  // What is below stays where it is while the text grows shorter.
  #keepHeight() {
    if (this.width !== this.box.clientWidth) [this.width, this.height] = [this.box.clientWidth, 0];
    this.height = Math.max(this.height, this.box.offsetHeight);
    this.outer.style.minHeight = `${this.height}px`;
  }

  /** Shows a sentence in place of a text. */
  empty(...children) {
    this.reset();
    this.view = null;
    this.box.replaceChildren(el("p.empty", {}, ...children));
  }

  /** Forgets the text that was shown, and how tall it was. */
  reset() {
    this.rows = [];
    this.blocks.clear();
    this.shrink();
  }

  /** Is no taller than its text again. */
  shrink() {
    this.width = -1;
    this.outer.style.minHeight = "";
  }

  clearSelection() {
    this.#select([]);
    const native = getSelection();
    if (native && this.box.contains(native.anchorNode)) native.removeAllRanges();
  }

  #isOpen(position) {
    const { state } = this.view;
    return state.open !== null && position >= state.start && position < state.start + state.open.length;
  }

  #blockOf(cell, position) {
    if (this.#isOpen(position)) return `open ${this.view.state.start}`;
    if (position >= this.view.state.ids.length) return "ahead";
    return cell.block < 0 ? "given" : `block ${cell.block}`;
  }

  // The node of a position: the one that stands there, where nothing about it has changed.
  #row(cell, position, text) {
    const { state, keep } = this.view;
    const old = struck(cell);
    const strike = old && (keep || state.pass - old.pass <= STRUCK_PASSES || cell.kind === "mask") ? old : null;
    const fresh = cell.pass === state.pass && cell.kind === "token" && state.phase === "running";
    const key = `${text}|${strike ? 1 : 0}`;
    const row = this.rows[position];
    if (row?.cell === cell && row.key === key) return row.node;
    const had = row?.node === document.activeElement;
    const node = this.#token(cell, position, text, strike);
    if (fresh) node.classList.add("fresh");
    if (this.selected.has(position)) node.setAttribute("aria-selected", "true");
    this.rows[position] = { cell, key, node, had };
    return node;
  }

  #token(cell, position, text, strike) {
    const node = el("span.tok", { role: "option", tabindex: -1, "data-p": position, "aria-selected": "false" });
    node.classList.add(cell.kind);
    if (cell.kind === "mask") {
      node.setAttribute("aria-label", "mask");
      node.append(this.#strike(strike), el("span.m", {}));
      return node;
    }
    if (cell.kind === "token") node.dataset.c = confidence(cell.prob);
    if (cell.id === this.view.eos) {
      node.setAttribute("aria-label", "end of text");
      node.append(el("span.end", {}, "end"));
      return node;
    }
    const [, space, word] = text.match(/^(\s*)([^]*)$/);
    // A token of nothing, or of white space alone, can't be seen; it still has its place.
    if (!word) node.classList.add("blank");
    node.append(space, this.#strike(strike), word ? el("span.w", {}, word) : "");
    return node;
  }

  #strike(strike) {
    if (!strike) return "";
    const why = REASON_WORDS[strike.why] ?? strike.why;
    const title = `${percent(strike.prob)}: ${REASONS[strike.why] ?? strike.why}`;
    const word = this.view.pieces.join([strike.cell.id]).trim() || this.view.pieces.show(strike.cell.id);
    // The reader's own need no reason.
    return el("del.struck", { title }, el("span", {}, word), strike.by === "you" ? "" : el("small", {}, why));
  }

  // Text that was just taken back, as a block that fades.
  #fading() {
    const { retracted } = this.view.cells;
    const { state, pieces } = this.view;
    if (!retracted || state.pass - retracted.pass > FADING_PASSES || state.phase !== "running") return null;
    const name = `fading ${retracted.pass}`;
    const node = this.blocks.get(name)?.firstChild
      ?? el("del", { title: `${percent(retracted.prob)}: ${REASONS[retracted.why]}` }, pieces.join(retracted.cells.map((cell) => cell.id)).trim());
    return { name, open: false, nodes: [node] };
  }

  #arrange(blocks) {
    const focused = document.activeElement;
    const kept = new Map();
    let before = null;
    for (const { name, open, nodes } of blocks) {
      // A block that was opened again has the same name as before: one of them is new.
      const taken = kept.has(name);
      const block = (!taken && this.blocks.get(name)) || el("span.block");
      const kind = name.split(" ")[0];
      const classes = `block ${kind === "block" ? "committed" : kind}`;
      if (block.className !== classes) block.className = classes;
      block.dataset.open = open;
      nodes.forEach((node, index) => {
        if (block.childNodes[index] !== node) block.insertBefore(node, block.childNodes[index] ?? null);
      });
      while (block.childNodes.length > nodes.length) block.lastChild.remove();
      const place = before ? before.nextSibling : this.box.firstChild;
      if (place !== block) this.box.insertBefore(block, place);
      before = block;
      kept.set(taken ? `${name} again` : name, block);
    }
    while (before ? before.nextSibling : this.box.firstChild) this.box.lastChild.remove();
    this.blocks = kept;
    if (this.box.contains(focused) || focused !== document.activeElement) this.rows[this.active]?.node.focus({ preventScroll: true });
  }

  #keepTabStop() {
    this.active = Math.max(this.view.first, Math.min(this.active, this.rows.length - 1));
    const stop = this.box.querySelector('[tabindex="0"]');
    const node = this.rows[this.active]?.node;
    if (stop === node) return;
    if (stop) stop.tabIndex = -1;
    if (node) node.tabIndex = 0;
  }

  #point(target, focused) {
    const node = target instanceof Element ? target.closest(".tok") : null;
    if (!node || !this.view) return hideTip();
    const position = Number(node.dataset.p);
    if (focused) {
      this.active = position;
      this.#keepTabStop();
      node.setAttribute("aria-describedby", "tip");
    }
    return showTip(node, this.view, position);
  }

  #key(event) {
    if (!this.rows.length || event.altKey || event.ctrlKey || event.metaKey) return;
    const last = this.rows.length - 1;
    const to = {
      ArrowRight: () => this.active + 1, ArrowLeft: () => this.active - 1, Home: () => this.view.first, End: () => last,
      ArrowDown: () => this.#line(1), ArrowUp: () => this.#line(-1),
    }[event.key];
    if (event.key === "Escape") {
      hideTip();
      this.clearSelection();
    } else if (event.key === " " && this.chosen) {
      this.#select(this.selected.has(this.active) ? [] : [this.active]);
      this.anchor = this.active;
    } else if (to) {
      const from = this.anchor ?? this.active;
      const next = Math.max(this.view.first, Math.min(to(), last));
      this.rows[next].node.focus();
      this.anchor = event.shiftKey && this.chosen ? from : null;
      if (this.anchor !== null) this.#range(this.anchor, next);
      else this.#select([]);
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  // The token above or below the active one.
  #line(way) {
    const from = this.rows[this.active].node.getBoundingClientRect();
    let best = this.active;
    let least = Infinity;
    this.rows.forEach(({ node }, position) => {
      const box = node.getBoundingClientRect();
      const down = (box.top - from.top) * way;
      if (down < 8) return;
      const far = down * 4 + Math.abs(box.left - from.left);
      if (far < least) [least, best] = [far, position];
    });
    return best;
  }

  #range(from, to) {
    const [low, high] = from < to ? [from, to] : [to, from];
    this.#select(Array.from({ length: high - low + 1 }, (_, row) => low + row));
  }

  // A selection of text is one of tokens too.
  #dragged() {
    const selection = getSelection();
    if (!selection?.rangeCount || !this.view || this.box.hidden) return;
    const range = selection.getRangeAt(0);
    if (!this.box.contains(range.commonAncestorContainer)) return;
    if (range.collapsed) {
      if (!this.box.contains(document.activeElement) || this.anchor === null) this.#select([]);
      return;
    }
    const inside = ({ node }) => {
      const text = node.querySelector(".w") ?? node;
      const own = document.createRange();
      own.selectNodeContents(text);
      return range.compareBoundaryPoints(Range.START_TO_END, own) > 0 && range.compareBoundaryPoints(Range.END_TO_START, own) < 0;
    };
    const rows = this.rows.map((row, position) => (inside(row) ? position : -1)).filter((position) => position >= 0);
    if (rows.length) this.#range(rows[0], rows.at(-1));
  }

  #select(positions) {
    if (!this.chosen) return;
    const able = positions.filter((position) => this.rows[position] && position < this.view.state.ids.length && this.rows[position].cell.kind !== "mask" && position > 0);
    if (able.length === this.selected.size && able.every((position) => this.selected.has(position))) return;
    for (const position of this.selected) this.rows[position]?.node.setAttribute("aria-selected", "false");
    this.selected = new Set(able);
    for (const position of able) this.rows[position].node.setAttribute("aria-selected", "true");
    this.chosen(able);
  }
}

// The text that events tell (docs/events.md): committed ids and the open block. Every event is checked against what stands, and
// every state has a hash, so that a stream which contradicts itself is noticed at its first wrong event. Knows no text, no page.

import { EMPTY, addNumber, hex } from "./hash.js";

/** Something that contradicts what stands, as a sentence. */
export class Contradiction extends Error {}

function refuse(expected, found) {
  throw new Contradiction(`event: expected ${expected}, found ${found}`);
}

/** What stands after the events so far. */
export class State {
  constructor(mask) {
    this.mask = mask;
    this.given = [];
    this.text = [];
    // The hash of each beginning of the text.
    this.hashes = [EMPTY];
    this.start = 0;
    this.open = null;
    this.block = 0;
    this.pass = 0;
    this.reach = 0;
    this.longest = 0;
    this.phase = "empty";
    this.finished = null;
  }

  /** One that goes its own way from here. */
  copy() {
    const copy = Object.assign(new State(this.mask), this);
    copy.text = this.text.slice();
    copy.hashes = this.hashes.slice();
    copy.open = this.open && this.open.slice();
    return copy;
  }

  /** The position from which on the text is the sample's: after the prompt, or after the first id where the prompt has gaps. */
  get own() {
    return this.given.includes(this.mask) ? 1 : this.given.length;
  }

  /** All ids: committed ones, then those of the open block behind them. */
  get ids() {
    return this.open ? [...this.text.slice(0, this.start), ...this.open] : this.text;
  }

  isGiven(position) {
    return position < this.given.length && this.given[position] !== this.mask;
  }

  isFixed(position) {
    return position < this.text.length || this.isGiven(position);
  }

  /** 16 hex digits that two readers of the same text share. */
  hash() {
    let hash = this.hashes[this.text.length];
    if (this.open) {
      hash = addNumber(hash, this.start, 1);
      for (const id of this.open) hash = addNumber(hash, id);
    }
    return hex(hash);
  }

  /** Takes one event in; throws a Contradiction, and leaves all as it was, where it does not fit. */
  apply(event) {
    if (event.event === "started") return this.#begin(event);
    if (this.phase !== "running") refuse("an event while a sample runs", `one when it is ${this.phase}`);
    switch (event.event) {
      case "block_opened": return this.#openBlock(event);
      case "edited": return this.#edit(event);
      case "block_committed": return this.#commit(event);
      case "retracted": return this.#retract(event);
      case "finished": return this.#finish(event);
      default: return refuse("an event that this page knows", `\`${event.event}\``);
    }
  }

  #begin({ prompt, block, reach = 0 }) {
    if (this.phase !== "empty") refuse("the only start of a sample", "a second one");
    this.phase = "running";
    this.given = prompt.slice();
    this.block = block;
    this.reach = reach;
    const gap = prompt.indexOf(this.mask);
    this.#put(0, gap < 0 ? prompt : prompt.slice(0, gap));
  }

  #openBlock({ start, ids }) {
    if (this.open) refuse("a block opened after the last one was committed", "a block that is still open");
    if (start > this.text.length || start + ids.length <= this.text.length) {
      refuse(`a block that holds position ${this.text.length}`, `${ids.length} ids from ${start}`);
    }
    ids.forEach((id, row) => {
      const stands = this.text[start + row] ?? this.given[start + row] ?? this.mask;
      if (id !== stands) refuse(`id ${stands} at position ${start + row}`, id);
    });
    this.start = start;
    this.open = ids.slice();
  }

  #edit({ pass, edits }) {
    this.#checkPass(pass);
    if (!this.open && edits.length) refuse("an open block", "edits of none");
    const ids = this.open && this.open.slice();
    for (const edit of edits) this.#one(ids, edit);
    this.open = ids;
    this.pass = pass;
  }

  #one(ids, { position, kind, old, new: next }) {
    const row = position - this.start;
    const last = ids.length - 1;
    if (!(row >= 0 && row <= last)) refuse(`a position from ${this.start} to ${this.start + last}`, position);
    const shifts = kind === "insert" || kind === "delete";
    for (let at = position; at <= (shifts ? this.start + last : position); at += 1) {
      if (this.isFixed(at)) refuse("fixed ids left as they are", `an edit of position ${position}`);
    }
    const { mask } = this;
    const stands = ids[kind === "insert" ? last : row];
    if (old !== stands) refuse(`id ${stands} before the edit of position ${position}`, old);
    const sound = {
      fill: old === mask && next !== mask,
      revise: old !== mask && next !== mask && next !== old,
      remask: old !== mask && next === mask,
      insert: next === mask,
      delete: old !== mask && next === (row < last ? ids[row + 1] : mask),
    }[kind];
    if (!sound) refuse(`a ${kind} that fits position ${position}`, `id ${old} to id ${next}`);
    if (kind === "insert") ids.splice(row, 0, mask), ids.pop();
    else if (kind === "delete") ids.splice(row, 1), ids.push(mask);
    else ids[row] = next;
  }

  #commit({ start, ids }) {
    const same = this.open && this.start === start && ids.length === this.open.length;
    if (!same || ids.some((id, row) => id !== this.open[row] || id === this.mask)) {
      refuse("the open block as it stands, without a mask", `${ids.length} ids at ${start}`);
    }
    this.open = null;
    this.#put(start, ids);
  }

  #retract({ start, ids, pass }) {
    this.#checkPass(pass);
    const same = ids.length > 0 && start + ids.length === this.text.length;
    if (this.open || !same || ids.some((id, row) => id !== this.text[start + row])) {
      refuse(`the committed ids from ${start} on, and no open block`, "others");
    }
    if (this.isGiven(start)) refuse("fixed ids left as they are", `position ${start} taken back`);
    if (start + this.reach < this.longest) {
      refuse(`nothing taken back before position ${this.longest - this.reach}`, start);
    }
    this.#put(start, []);
    this.pass = pass;
  }

  #finish(event) {
    const { length, passes } = event;
    this.#checkPass(passes);
    // A sample that is stopped keeps what is known at the beginning of its open block.
    const gap = this.open ? this.open.indexOf(this.mask) : 0;
    const known = this.open ? this.open.slice(0, gap < 0 ? undefined : gap) : [];
    const most = known.length ? Math.max(this.text.length, this.start + known.length) : this.text.length;
    if (length > most) refuse(`at most ${most} ids`, length);
    if (length > this.text.length) this.#put(this.start, known.slice(0, length - this.start));
    else this.#put(length, []);
    this.open = null;
    this.pass = passes;
    this.phase = "finished";
    this.finished = event;
  }

  #checkPass(pass) {
    if (!(pass >= this.pass)) refuse(`pass ${this.pass} or a later one`, pass);
  }

  // Replaces the text from `start` on.
  #put(start, ids) {
    this.text.length = Math.min(start, this.text.length);
    this.hashes.length = this.text.length + 1;
    for (const id of ids) {
      this.text.push(id);
      this.hashes.push(addNumber(this.hashes.at(-1), id));
    }
    this.longest = Math.max(this.longest, this.text.length);
  }
}

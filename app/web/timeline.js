// A sample's lines as they arrive or as a file holds them, and what stood after any of them: states are made again from the nearest
// snapshot, so that going back costs little. A frame is what one pass changed in sight.

import { Cells } from "./cells.js";
import { Contradiction, State } from "./state.js";
import { Pieces } from "./text.js";

const SNAPSHOT_EVERY = 24;

/** The lines of one sample. */
export class Timeline {
  /** `base`: cells of an earlier canvas, {cells, pieces}, from which this one goes on. */
  constructor(base = null) {
    this.base = base?.cells ?? null;
    this.header = null;
    this.pieces = new Pieces(base?.pieces);
    this.lines = [];
    this.events = [];
    // frames[k]: how many events have happened at the end of frame k.
    this.frames = [];
    this.head = null;
    this.snapshots = [];
    this.cursor = null;
  }

  /** Takes one line, without its sum; throws a Contradiction where it does not fit what stands. */
  push(line) {
    if (!this.header) {
      if (line.bd3_trace !== 1) throw new Contradiction(`trace: expected version 1, found ${line.bd3_trace ?? "none"}`);
      this.header = line;
      this.head = { count: 0, state: new State(line.mask), cells: new Cells(this.base) };
      this.snapshots = [copy(this.head)];
    } else if ("piece" in line) {
      this.pieces.add(line);
    } else {
      this.#event(line);
    }
    this.lines.push(line);
  }

  #event(line) {
    const unknown = idsOf(line).find((id) => !this.pieces.has(id));
    if (unknown !== undefined) throw new Contradiction(`event: found id ${unknown}, whose piece did not stand before it`);
    const { state, cells } = this.head;
    state.apply(line);
    const hash = state.hash();
    if (hash !== line.state) throw new Contradiction(`event: found state ${line.state} where the events lead to ${hash}`);
    cells.take(line, state);
    this.events.push(line);
    this.head.count += 1;
    const seen = line.event === "edited" && line.edits.some(({ position }) => position < this.limit);
    const begins = seen || line.event === "retracted";
    if (begins || this.frames.length === 0) this.frames.push(0);
    this.frames[this.frames.length - 1] = this.head.count;
    if (this.head.count % SNAPSHOT_EVERY === 0) this.snapshots.push(copy(this.head));
  }

  /** How long the text may become: rows that the last block has behind that are drawn, and cut off. */
  get limit() {
    const more = this.header?.settings?.options?.max_new;
    return more === undefined ? Infinity : this.head.state.given.length + more;
  }

  get last() {
    return this.frames.length - 1;
  }

  get isFinished() {
    return this.head?.state.phase === "finished";
  }

  /** What stands at the end of a frame: {state, cells, ms, event}. Not to be changed. */
  at(frame) {
    const count = this.frames[Math.max(0, Math.min(frame, this.last))] ?? 0;
    const near = this.snapshots[Math.min(Math.floor(count / SNAPSHOT_EVERY), this.snapshots.length - 1)];
    if (!this.cursor || this.cursor.count > count || this.cursor.count < near.count) this.cursor = copy(near);
    const at = this.cursor;
    for (; at.count < count; at.count += 1) {
      const event = this.events[at.count];
      at.state.apply(event);
      at.cells.take(event, at.state);
    }
    return { state: at.state, cells: at.cells, ms: this.events[count - 1]?.ms ?? 0, count };
  }

  /** Milliseconds at which a frame was reached. */
  ms(frame) {
    return this.events[(frame === 0 ? 1 : this.frames[frame - 1] + 1) - 1]?.ms ?? 0;
  }

  /** The last frame reached at this time; -1 before the first. */
  frameAt(ms) {
    let low = -1;
    for (let high = this.last; low < high;) {
      const middle = Math.ceil((low + high) / 2);
      if (this.ms(middle) <= ms) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

function copy({ count, state, cells }) {
  return { count, state: state.copy(), cells: cells.copy() };
}

function idsOf(line) {
  if (line.prompt || line.ids) return line.prompt ?? line.ids;
  return (line.edits ?? []).flatMap((edit) => [edit.old, edit.new, ...(edit.alternatives ?? []).map(([id]) => id)]);
}

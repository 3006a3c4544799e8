// What stands after each event of a trace: written from docs/events.md alone.

/** 64-bit FNV-1a over numbers, each as 8 bytes with the least first; 16 hex digits. */
function fnv(numbers) {
  let value = 0xcbf29ce484222325n;
  for (const number of numbers) {
    for (let byte = 0n; byte < 8n; byte++) {
      value = BigInt.asUintN(64, (value ^ ((number >> (8n * byte)) & 255n)) * 0x100000001b3n);
    }
  }
  return value.toString(16).padStart(16, "0");
}

/** Committed ids, and the open block with its start. */
export class State {
  header = null;
  pieces = new Map();
  given = [];
  ids = [];
  start = 0;
  open = null;
  events = [];

  hash() {
    const block = this.open ? [BigInt(this.start) | (1n << 63n), ...this.open.map(BigInt)] : [];
    return fnv([...this.ids.map(BigInt), ...block]);
  }

  /** Applies a line of a trace, and holds what stands to the hash that the line tells. */
  apply(line) {
    if ("bd3_trace" in line) {
      this.header = line;
    } else if ("piece" in line) {
      this.pieces.set(line.piece, "bytes" in line ? Buffer.from(line.bytes) : Buffer.from(line.text));
    } else {
      this[line.event](line);
      this.events.push(line);
      if (this.hash() !== line.state) throw new Error(`another state after ${JSON.stringify(line)}`);
    }
  }

  started({ prompt }) {
    const mask = prompt.indexOf(this.header.mask);
    this.given = prompt;
    this.ids = mask < 0 ? [...prompt] : prompt.slice(0, mask);
  }

  block_opened({ start, ids }) {
    [this.start, this.open] = [start, [...ids]];
  }

  edited({ edits }) {
    for (const { position, kind, new: id } of edits) {
      const row = position - this.start;
      if (kind === "insert") {
        this.open.splice(row, 0, id);
        this.open.pop();
      } else if (kind === "delete") {
        this.open.splice(row, 1);
        this.open.push(this.header.mask);
      } else {
        this.open[row] = id;
      }
    }
  }

  block_committed({ start, ids }) {
    this.ids = [...this.ids.slice(0, start), ...ids];
    this.open = null;
  }

  retracted({ start }) {
    this.ids = this.ids.slice(0, start);
  }

  finished({ length }) {
    if (length > this.ids.length) this.ids = [...this.ids.slice(0, this.start), ...this.open];
    this.ids = this.ids.slice(0, length);
    this.open = null;
  }

  /** The text of the ids from `begin` on. */
  text(begin = 0) {
    return Buffer.concat(this.ids.slice(begin).map((id) => this.pieces.get(id))).toString();
  }
}

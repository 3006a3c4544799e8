// Where numbers lie in the picture of a curve, and where their names find room.

import { svg } from "./dom.js";

const STEPS = [1, 1.5, 2, 3, 5, 7, 10];

/** How wide a name is, about. */
export function textWidth(text) {
  return text.length * 6.3;
}

/** Tokens per second from 0 on, perplexity by its logarithm; less is better and below. */
export class Axes {
  constructor({ points, held_out }) {
    Object.assign(this, { width: 960, height: 560, left: 58, right: 940, top: 16, bottom: 508 });
    const heights = points.map((point) => point.perplexity).concat(held_out ? [held_out.perplexity] : []).filter(Number.isFinite);
    this.fastest = Math.max(...points.map((point) => point.tokens_per_second), 1) * 1.08;
    this.low = Math.min(...heights) / 1.3;
    this.high = Math.max(Math.max(...heights) * 1.15, this.low * 2.5);
  }

  x(speed) {
    return this.left + (this.right - this.left) * speed / this.fastest;
  }

  y(perplexity) {
    return this.bottom - (this.bottom - this.top) * Math.log(perplexity / this.low) / Math.log(this.high / this.low);
  }

  draw() {
    const parts = [];
    const least = this.fastest / 7;
    const power = 10 ** Math.floor(Math.log10(least));
    const step = [1, 2, 5, 10].map((value) => value * power).find((value) => value >= least);
    for (let value = 0; value <= this.fastest; value += step) {
      const x = this.x(value).toFixed(1);
      parts.push(svg("path.grid", { d: `M${x} ${this.top}V${this.bottom}` }), svg("text.tick.middle", { x, y: this.bottom + 19 }, String(value)));
    }
    for (const value of this.#marks()) {
      const y = this.y(value);
      parts.push(svg("path.grid", { d: `M${this.left} ${y.toFixed(1)}H${this.right}` }), svg("text.tick.end", { x: this.left - 8, y: (y + 4).toFixed(1) }, String(value)));
    }
    const centre = (this.top + this.bottom) / 2;
    parts.push(svg("path.axis", { d: `M${this.left} ${this.top}V${this.bottom}H${this.right}` }),
      svg("text.name.middle", { x: (this.left + this.right) / 2, y: this.height - 12 }, "tokens per second, one sample at a time"),
      svg("text.name.middle", { x: 16, y: centre, transform: `rotate(-90 16 ${centre})` }, "perplexity under the judge"));
    return parts;
  }

  #marks() {
    const marks = [];
    for (let power = 10 ** Math.floor(Math.log10(this.low)); power < this.high; power *= 10) {
      for (const step of STEPS.slice(0, 6)) marks.push(Number((step * power).toPrecision(3)));
    }
    return marks.filter((value) => value > this.low && value < this.high);
  }
}

// Does the line from a point to its name cross no other name?
function clear(from, to, boxes) {
  return Array.from({ length: 12 }, (_, step) => (step + 1) / 12).every((share) => {
    const [x, y] = [from.x + (to.x - from.x) * share, from.y + (to.y - from.y) * share];
    return !boxes.some(([left, top, right, bottom]) => x > left && x < right && y > top && y < bottom);
  });
}

/**
 * Names beside their points where there is room; those of the front choose first. Gives {text, left, base, leader}; a name that finds no
 * room is left out, and the point says it itself.
 */
export function place(names, lines, axes) {
  const taken = names.filter(({ box }) => box).map(({ box }) => box);
  const points = names.filter(({ text }) => text);
  const placed = [];
  const crossed = [...lines];
  const free = ([left, top, right, bottom]) => {
    if (left < axes.left || right > axes.right || top < axes.top || bottom > axes.bottom) return false;
    if (points.some(({ x, y }) => x > left - 8 && x < right + 8 && y > top - 8 && y < bottom + 8)) return false;
    if (taken.some((other) => left < other[2] && other[0] < right && top < other[3] && other[1] < bottom)) return false;
    return !crossed.some(([from, to]) => Math.min(from.x, to.x) < right + 3 && Math.max(from.x, to.x) > left - 3 && Math.min(from.y, to.y) < bottom && Math.max(from.y, to.y) > top);
  };
  for (const { x, y, text } of [...points].sort((a, b) => Number(b.first) - Number(a.first))) {
    const width = textWidth(text);
    const tries = [];
    for (const far of [0, 14, 28, 44, 62]) {
      for (const [way, side] of [[0, 1], [0, -1], [-1, 1], [1, 1], [-1, -1], [1, -1], [-1, 0], [1, 0]]) {
        if (far && !way && side) continue;
        const left = side > 0 ? x + 10 + far * 0.4 : side < 0 ? x - 10 - far * 0.4 - width : x - width / 2;
        const middle = y + way * (far + (side ? 10 : 17));
        tries.push({ box: [left, middle - 8, left + width, middle + 8], far, side });
      }
    }
    const nearest = ([left, top, right, bottom]) => ({ x: Math.max(left, Math.min(x, right)), y: (top + bottom) / 2 < y ? bottom - 2 : top + 3 });
    const found = tries.find(({ box, far }) => free(box) && (!far || clear({ x, y }, nearest(box), taken)));
    if (!found) continue;
    taken.push(found.box);
    const [left, top] = found.box;
    const to = nearest(found.box);
    const leader = found.far ? `M${x.toFixed(1)} ${y.toFixed(1)}L${to.x.toFixed(1)} ${to.y.toFixed(1)}` : null;
    if (leader) crossed.push([{ x, y }, to]);
    placed.push({ text, left: left.toFixed(1), base: (top + 12).toFixed(1), leader });
  }
  return placed;
}

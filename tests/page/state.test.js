// The page's pure modules, on traces that `bd3 sample --trace` wrote.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { struck, history } from "../../app/web/cells.js";
import { EMPTY, addBytes, addNumber, hex } from "../../app/web/hash.js";
import { Contradiction, State } from "../../app/web/state.js";
import { Pieces, confidence, percent } from "../../app/web/text.js";
import { Timeline } from "../../app/web/timeline.js";
import { readTrace, writeTrace } from "../../app/web/trace.js";

const NAMES = ["look-back", "remask", "edit", "infill"];
const bytesOf = (name) => readFileSync(new URL(`traces/${name}.jsonl`, import.meta.url));
const read = (name) => readTrace(`${name}.jsonl`, bytesOf(name)).timeline;

function numbers(seed) {
  let at = seed;
  return () => ((at = (Math.imul(at, 1103515245) + 12345) >>> 0) >>> 8) / 0x1000000;
}

test("a hash is FNV-1a of 64 bits", () => {
  const random = numbers(7);
  const bytes = Uint8Array.from({ length: 5000 }, () => Math.floor(random() * 256));
  let expected = 0xcbf29ce484222325n;
  for (const byte of bytes) expected = ((expected ^ BigInt(byte)) * 0x100000001b3n) & 0xffffffffffffffffn;
  assert.equal(hex(addBytes(EMPTY, bytes)), expected.toString(16).padStart(16, "0"));
  assert.equal(hex(addBytes(EMPTY, new TextEncoder().encode("foobar"))), "85944171f73967e8");
  assert.deepEqual(addNumber(EMPTY, 0x0102030405), addBytes(EMPTY, [5, 4, 3, 2, 1, 0, 0, 0]));
  assert.deepEqual(addNumber(EMPTY, 3, 1), addBytes(EMPTY, [3, 0, 0, 0, 0, 0, 0, 0x80]));
});

test("every recorded trace is read, and written again byte by byte as far as numbers are spelled alike", () => {
  for (const name of NAMES) {
    const { timeline, cut } = readTrace(name, bytesOf(name));
    assert.equal(cut, false);
    assert.ok(timeline.isFinished, name);
    const again = readTrace(name, new TextEncoder().encode(writeTrace(timeline.lines))).timeline;
    assert.deepEqual(again.lines, timeline.lines);
  }
});

test("a changed byte, wherever it is, is noticed", () => {
  for (const name of NAMES) {
    const sound = bytesOf(name);
    const random = numbers(3);
    for (let round = 0; round < 150; round += 1) {
      const bytes = Uint8Array.from(sound);
      const at = Math.floor(random() * bytes.length);
      bytes[at] ^= 1 + Math.floor(random() * 127);
      // What follows the last line feed counts as a line that is cut short.
      const read = () => assert.equal(readTrace("x", bytes).cut, false);
      assert.throws(read, (error) => at >= sound.length - 1 || error instanceof Contradiction, `byte ${at} of ${name}`);
    }
  }
});

test("a line that is missing, twice or moved is noticed, and the sentence says where", () => {
  const lines = bytesOf("edit").toString().trimEnd().split("\n");
  const open = (changed) => () => readTrace("story.jsonl", new TextEncoder().encode(`${changed.join("\n")}\n`));
  const sentence = /^story\.jsonl: expected a sound line 6, found a line that is not as it was written/;
  assert.throws(open(lines.filter((_, index) => index !== 5)), { message: sentence });
  assert.throws(open([...lines.slice(0, 5), lines[4], ...lines.slice(5)]), { message: sentence });
  assert.throws(open([...lines.slice(0, 5), lines[6], lines[5], ...lines.slice(7)]), { message: sentence });
  assert.throws(open(["{}"]), { message: /found something else than a trace/ });
  assert.throws(open(['{"bd3_trace":2}']), { message: /version 2/ });
  const cut = new TextEncoder().encode(`${lines.slice(0, 9).join("\n")}\n{"event":`);
  assert.equal(readTrace("x", cut).cut, true);
});

test("going back and forth shows what going forth showed", () => {
  for (const name of NAMES) {
    const timeline = read(name);
    const seen = timeline.frames.map((_, frame) => {
      const { state, cells } = timeline.at(frame);
      return JSON.stringify([state.hash(), state.pass, cells.list]);
    });
    const random = numbers(11);
    for (let round = 0; round < 200; round += 1) {
      const frame = Math.floor(random() * timeline.frames.length);
      const { state, cells } = timeline.at(frame);
      assert.equal(JSON.stringify([state.hash(), state.pass, cells.list]), seen[frame], `${name}, frame ${frame}`);
    }
  }
});

test("cells follow ids, whatever happens to them", () => {
  for (const name of NAMES) {
    const timeline = read(name);
    timeline.frames.forEach((_, frame) => {
      const { state, cells } = timeline.at(frame);
      const ids = state.ids;
      assert.deepEqual(cells.list.slice(0, ids.length).map((cell) => cell.id), ids, `${name}, frame ${frame}`);
    });
  }
});

test("a revised token stands struck beside its successor, with both probabilities and the reason", () => {
  const timeline = read("edit");
  const edit = timeline.events.flatMap((event) => event.edits ?? []).find(({ kind }) => kind === "revise");
  const frame = timeline.frames.findIndex((count) => timeline.events.slice(0, count).some((e) => e.edits?.includes(edit)));
  const cell = timeline.at(frame).cells.list[edit.position];
  const old = struck(cell);
  assert.deepEqual([old.cell.id, old.prob, old.why, cell.id, cell.prob], [edit.old, edit.old_prob, "better", edit.new, edit.prob]);
  assert.deepEqual(history(cell).map(({ by }) => by), ["fill", "revise"]);
});

test("a token that was masked again stands struck beside what came in its place", () => {
  const timeline = read("remask");
  const edits = timeline.events.flatMap((event) => event.edits ?? []);
  const masked = edits.filter(({ kind }) => kind === "remask");
  const last = timeline.at(timeline.last).cells.list;
  const kept = masked.filter(({ position }) => position < last.length);
  const other = kept.filter(({ position, old }) => last[position].id !== old);
  assert.ok(other.length > 0);
  for (const { position, old } of other) assert.equal(struck(last[position]).cell.id, old);
  for (const { position } of kept) assert.deepEqual(history(last[position]).map(({ by }) => by), ["fill", "remask", "fill"]);
});

test("text that is taken back is remembered, and its first token struck beside the next one there", () => {
  const timeline = read("look-back");
  const index = timeline.events.findIndex(({ event }) => event === "retracted");
  const { start, ids, why, prob, pass } = timeline.events[index];
  const frame = timeline.frames.findIndex((count) => count > index);
  const { cells, state } = timeline.at(frame);
  const { retracted } = cells;
  assert.deepEqual([retracted.start, retracted.why, retracted.pass], [start, why, pass]);
  assert.deepEqual(retracted.cells.map((cell) => cell.id), ids);
  assert.equal(state.text.length, start);
  const cell = timeline.at(timeline.last).cells.list[start];
  if (cell.id !== ids[0]) assert.deepEqual([struck(cell).cell.id, struck(cell).prob], [ids[0], prob]);
  assert.ok(history(cell).some(({ by }) => by === "retracted"));
});

test("what contradicts the state is refused, and changes nothing", () => {
  const state = new State(9);
  state.apply({ event: "started", prompt: [1, 2], block: 4 });
  state.apply({ event: "block_opened", start: 0, ids: [1, 2, 9, 9] });
  const hash = state.hash();
  const fill = { position: 2, kind: "fill", old: 9, new: 3 };
  const wrong = [
    [{ event: "started", prompt: [], block: 4 }, /second/],
    [{ event: "block_opened", start: 4, ids: [9] }, /still open/],
    [{ event: "edited", pass: 1, edits: [{ ...fill, position: 4 }] }, /from 0 to 3/],
    [{ event: "edited", pass: 1, edits: [{ ...fill, position: 0, old: 1, kind: "revise" }] }, /fixed/],
    [{ event: "edited", pass: 1, edits: [fill, fill] }, /id 3 before/],
    [{ event: "edited", pass: 1, edits: [{ ...fill, new: 9 }] }, /fits position 2/],
    [{ event: "block_committed", start: 0, ids: [1, 2, 9, 9] }, /without a mask/],
    [{ event: "retracted", start: 1, ids: [2], pass: 1 }, /no open block/],
    [{ event: "finished", length: 3, passes: 1 }, /at most 2/],
    [{ event: "danced" }, /knows/],
  ];
  for (const [event, message] of wrong) {
    assert.throws(() => state.apply(event), { message });
    assert.equal(state.hash(), hash);
  }
  state.apply({ event: "edited", pass: 2, edits: [fill] });
  assert.throws(() => state.apply({ event: "edited", pass: 1, edits: [] }), { message: /pass 2 or a later one/ });
});

test("masks enter and tokens leave", () => {
  const state = new State(9);
  state.apply({ event: "started", prompt: [], block: 3 });
  state.apply({ event: "block_opened", start: 0, ids: [9, 9, 9] });
  const fills = [0, 1, 2].map((position) => ({ position, kind: "fill", old: 9, new: position + 1 }));
  state.apply({ event: "edited", pass: 1, edits: fills });
  state.apply({ event: "edited", pass: 2, edits: [{ position: 1, kind: "insert", old: 3, new: 9 }] });
  assert.deepEqual(state.open, [1, 9, 2]);
  state.apply({ event: "edited", pass: 3, edits: [{ position: 0, kind: "delete", old: 1, new: 9 }] });
  assert.deepEqual(state.open, [9, 2, 9]);
});

test("a rewrite goes on from the cells before it", () => {
  const first = read("look-back");
  const { state, cells } = first.at(first.last);
  const { mask } = first.header;
  const ids = state.text.map((id, position) => (position === 8 ? mask : id));
  const next = new Timeline({ cells: cells.list, pieces: first.pieces });
  const other = new State(mask);
  next.push(first.header);
  for (const id of new Set(ids)) next.push({ piece: id, bytes: [...first.pieces.of(id)] });
  const push = (event) => {
    other.apply(event);
    next.push({ ...event, ms: 0, state: other.hash() });
  };
  push({ event: "started", prompt: ids, block: 256 });
  push({ event: "block_opened", start: 0, ids });
  const shown = next.at(0).cells.list;
  assert.equal(shown.length, ids.length);
  assert.deepEqual([shown[8].kind, shown[8].by, struck(shown[8]).cell.id], ["mask", "you", state.text[8]]);
  assert.equal(shown[12].prob, cells.list[12].prob);
  // What was there is spelled though the new stream never told it.
  assert.equal(next.pieces.join([state.text[8]]), first.pieces.join([state.text[8]]));
});

test("a letter spread over several ids stands with the last of them", () => {
  const pieces = new Pieces();
  pieces.add({ piece: 1, bytes: [0xe2, 0x82] });
  pieces.add({ piece: 2, bytes: [0xac] });
  pieces.add({ piece: 3, text: " a" });
  assert.deepEqual(pieces.spell([3, 1, 2, 3]), [" a", "", "\u20ac", " a"]);
  assert.deepEqual([pieces.show(1), pieces.show(3)], ["e2 82", "\u00b7a"]);
});

test("probabilities are spelled as people read them, and fall in five steps", () => {
  assert.deepEqual([0, 0.0004, 0.034, 0.5, 0.996, 0.9999, 1].map(percent), ["0.0 %", "< 0.1 %", "3.4 %", "50 %", "99.6 %", "> 99.9 %", "100 %"]);
  assert.deepEqual([0, 0.1, 0.35, 0.6, 0.95].map(confidence), [0, 1, 2, 3, 4]);
});

// How each token came to stand where it stands. A cell is never changed, only followed by another, so that a copy of a canvas is a
// copy of a list: {id, kind: "given" | "mask" | "token", pass, prob, why, alternatives, block, before, by}. `before` is the cell
// that stood there, `by` what happened to it: an edit's kind, or "retracted", or "you" where the reader masked it.

/** The cells of a canvas. `base` are cells of an earlier one that the prompt repeats, masks where the reader asked for others. */
export class Cells {
  constructor(base = null) {
    this.base = base;
    this.list = [];
    // Cells that were taken back, by position, until other ones stand there.
    this.gone = new Map();
    // The last retraction: {start, cells, pass, prob, why}.
    this.retracted = null;
  }

  copy() {
    const copy = Object.assign(new Cells(this.base), this);
    copy.list = this.list.slice();
    copy.gone = new Map(this.gone);
    return copy;
  }

  /** Follows an event that `state` has just taken in. */
  take(event, state) {
    switch (event.event) {
      case "started":
        this.#ahead(0, state);
        break;
      case "block_opened":
        event.ids.forEach((id, row) => this.#opened(id, event.start + row, event.start, state));
        break;
      case "edited":
        for (const edit of event.edits) this.#edited(edit, event.pass, state);
        break;
      case "retracted":
        this.#retracted(event);
        this.#ahead(event.start, state);
        break;
      case "finished":
        this.list.length = Math.min(this.list.length, state.text.length);
        break;
    }
  }

  #given(id, position, block) {
    const base = this.base?.[position];
    this.list[position] =
      base?.id === id ? { ...base, block } : { id, kind: "given", pass: 0, prob: null, why: null, block, before: null };
  }

  // What the prompt gives from here on, gaps as masks, before a block opens there.
  #ahead(from, state) {
    for (let position = from; position < state.given.length; position += 1) {
      this.#opened(state.given[position], position, -1, state);
    }
  }

  #opened(id, position, block, state) {
    const stands = this.list[position];
    if (stands?.id === id && !this.gone.has(position)) {
      this.list[position] = { ...stands, block };
      return;
    }
    if (id !== state.mask) {
      this.#given(id, position, block);
      return;
    }
    const gone = this.gone.get(position);
    if (block >= 0) this.gone.delete(position);
    const base = gone ? null : this.base?.[position] ?? null;
    const before = gone?.cell ?? (base?.kind === "mask" ? base.before : base);
    const by = gone ? "retracted" : before ? "you" : null;
    const why = gone ? gone.why : before ? "you" : null;
    this.list[position] =
      { id, kind: "mask", pass: gone?.pass ?? 0, prob: gone?.prob ?? 0, why, block, before, by, first: gone?.first ?? true };
  }

  #edited({ position, kind, new: id, old_prob, prob, why, alternatives = [] }, pass, state) {
    const before = this.list[position];
    const { block } = before;
    const mask = { id: state.mask, kind: "mask", pass, prob: 0, why, block, before: null, by: kind, first: true };
    const last = state.open ? state.start + state.open.length - 1 : this.list.length - 1;
    if (kind === "insert") {
      this.list.splice(last, 1);
      this.list.splice(position, 0, mask);
    } else if (kind === "delete") {
      this.list.splice(position, 1);
      this.list.splice(last, 0, { ...mask, before });
    } else if (kind === "remask") {
      this.list[position] = { ...mask, before, prob: old_prob };
    } else {
      this.list[position] = { id, kind: "token", pass, prob, oldProb: old_prob, why, alternatives, block, before, by: kind };
    }
  }

  #retracted({ start, pass, prob, why }) {
    const cells = this.list.splice(start);
    cells.forEach((cell, row) => {
      const known = cell.kind === "token";
      if (known) this.gone.set(start + row, { cell, pass, why, prob: row ? cell.prob : prob, first: row === 0 });
    });
    this.retracted = { start, cells, pass, prob, why };
  }
}

/**
 * The token that stands struck through beside a cell: {cell, prob, why, pass, by}; none where nothing was replaced. `prob` is the
 * old token's when it went. Of text taken back only the first token was at fault, so only that one is struck.
 */
export function struck(cell) {
  if (cell.kind === "token" && cell.by === "revise") {
    return { cell: cell.before, prob: cell.oldProb, why: cell.why, pass: cell.pass, by: "revise" };
  }
  const mask = cell.kind === "mask" ? cell : cell.before?.kind === "mask" ? cell.before : null;
  if (!mask?.before || mask.first === false || mask.by === "insert" || mask.by === "delete") return null;
  if (mask.before.kind === "mask" || mask.before.id === cell.id) return null;
  const prob = mask.by === "you" ? mask.before.prob : mask.prob;
  return { cell: mask.before, prob, why: mask.why, pass: cell.kind === "mask" ? mask.pass : cell.pass, by: mask.by };
}

/** What happened at a cell's place, oldest first: [{pass, id, kind, by, prob, why}]. */
export function history(cell) {
  const steps = [];
  for (let at = cell; at; at = at.before) {
    if (at.kind !== "mask" || at.before) steps.push(at);
  }
  return steps.reverse().map(({ pass, id, kind, by, prob, why }) => ({ pass, id, kind, by, prob, why }));
}

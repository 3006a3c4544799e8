// Ids to text. The text is the bytes of its ids one after the other, and a letter may be spread over several of them.

/** The bytes of ids, as pieces tell them; what they do not tell is looked up in `others`. */
export class Pieces {
  constructor(others = null) {
    this.bytes = new Map();
    this.others = others;
  }

  /** The bytes of an id; none for one that nobody told. */
  of(id) {
    return this.bytes.get(id) ?? this.others?.of(id) ?? new Uint8Array();
  }

  /** Takes a piece: {piece or id, text or bytes}. */
  add({ piece, id = piece, text, bytes }) {
    this.bytes.set(id, bytes ? Uint8Array.from(bytes) : new TextEncoder().encode(text ?? ""));
  }

  has(id) {
    return this.bytes.has(id);
  }

  /** The text of some ids. */
  join(ids) {
    return this.spell(ids).join("");
  }

  /** A text for each id: a letter that is spread over several stands with the last of them. */
  spell(ids) {
    const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    const texts = ids.map((id) => decoder.decode(this.of(id), { stream: true }));
    const rest = decoder.decode();
    if (rest && texts.length) texts[texts.length - 1] += rest;
    return texts;
  }

  /** One id by itself, made visible: for lists of alternatives. */
  show(id) {
    const bytes = this.of(id);
    if (!bytes.length) return "\u2205";
    let text;
    try {
      text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch {
      return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    }
    return text.replace(/\n/g, "\u21b5").replace(/\t/g, "\u21e5").replace(/^ (?=.)/, "\u00b7").replace(/^ +$/, (s) => "\u00b7".repeat(s.length));
  }
}

/** A probability as a share that people read: 3 %, 99.6 %. */
export function percent(prob) {
  if (prob === null || prob === undefined) return "";
  const share = prob * 100;
  if (share > 0 && share < 0.1) return "< 0.1 %";
  if (share < 100 && share > 99.9) return "> 99.9 %";
  return `${share < 10 || (share > 99 && share < 100) ? share.toFixed(1) : share.toFixed(0)} %`;
}

/** Which of five steps of confidence, 0 (least) to 4. */
export function confidence(prob) {
  return [0.1, 0.3, 0.6, 0.9].filter((edge) => prob >= edge).length;
}

/** The words for a reason. */
export const REASONS = {
  rule: "the rule accepted it",
  best: "nothing was sure enough, and the best is always taken",
  hurry: "the block's budget would not last otherwise",
  schedule: "the noise schedule asked for it",
  unlikely: "it had become unlikely",
  better: "another token had become clearly more likely",
  asked: "the model asked for it",
  loop: "the block was in this state before",
  cleanup: "it must not stay in a final block",
  you: "you re-masked it",
};

/** What happened, in a word. */
export const DEEDS = {
  fill: "filled",
  revise: "revised",
  remask: "re-masked",
  insert: "a mask entered",
  delete: "left",
  retracted: "taken back",
  you: "re-masked by you",
};

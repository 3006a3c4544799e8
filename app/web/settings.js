// How to write: block size, rule and its knobs, revision, temperature, top-p, length, seed. One panel for all views; who is shown
// hears each change and acts at once.

import { byId, el, icon, later } from "./dom.js";

// What the knobs of rules are. `steps` follows the block size until it is moved.
const KNOBS = {
  threshold: { label: "Threshold", min: 0, max: 1, step: 0.01, value: () => 0.9 },
  steps: { label: "Passes a block", min: 1, step: 1, max: (block) => block, value: (block) => Math.max(1, block / 2) },
  factor: { label: "Factor", min: 0.1, max: 8, step: 0.1, value: () => 1 },
  bound: { label: "Bound, in nats", min: 0, max: 3, step: 0.05, value: () => 0.1 },
  low: { label: "Low threshold", min: 0, max: 1, step: 0.01, value: () => 0.62, silent: true },
  drift: { label: "Drift, in nats", min: 0.001, max: 0.1, step: 0.001, value: () => 0.01, silent: true },
  stable: { label: "Stable passes", min: 1, max: 5, step: 1, value: () => 2, silent: true },
};
const SHOWN_KNOBS = 2;

/** The panel, and what it says. */
export class Settings {
  constructor(box, model) {
    this.model = model;
    this.sizes = [...model.block_sizes].sort((a, b) => a - b);
    this.values = {
      block: model.block, rule: model.rules[0].name, revise: "none", temperature: 1, top_p: model.samples.top_p, n: model.samples.n, seed: 0, knobs: {},
    };
    this.listener = null;
    this.knobBox = el("div.knobs", {});
    this.tell = later(() => this.listener?.(), 220);
    box.replaceChildren(el("details", { open: innerWidth > 900 }, el("summary", {}, el("h2", {}, "Settings"), el("span.brief", { id: "brief" })), this.#fields()));
    this.#draw();
  }

  /** What a request says of all this; at these block sizes, where the view has its own. */
  request(blocks = []) {
    const { block, rule, revise, temperature, top_p, seed, knobs } = this.values;
    const known = {};
    for (const name of this.#knobs()) {
      if (!KNOBS[name].silent || name in knobs) known[name] = knobs[name] ?? KNOBS[name].value(block);
    }
    const more = revise === "none" || this.dropsRevision(blocks) ? {} : { revise };
    return { temperature, top_p, seed, bd3: { block, rule, ...known, ...more } };
  }

  /** Is the revision one that a block size of these can't have? To look back takes a larger one, half the model's length at most. */
  dropsRevision(blocks) {
    const { length } = this.model;
    const able = (block) => this.sizes.some((size) => size > block && size % block === 0 && 2 * size <= length);
    return this.values.revise === "look-back" && !blocks.every(able);
  }

  /** Takes values over: {block, rule, knobs, ...}. */
  load(values) {
    Object.assign(this.values, values);
    this.#draw();
  }

  /** Says it in a few words. */
  brief() {
    const { block, rule, revise, seed } = this.values;
    return `block ${block}, ${rule}${revise === "none" ? "" : `, ${revise}`}, seed ${seed}`;
  }

  /** The smallest trained size that holds so many ids, or the largest. */
  sizeFor(length) {
    return this.sizes.find((size) => size >= length) ?? this.sizes.at(-1);
  }

  #knobs() {
    const rule = this.model.rules.find(({ name }) => name === this.values.rule);
    return rule.knobs.filter((name) => name in KNOBS).slice(0, SHOWN_KNOBS);
  }

  #change(values) {
    Object.assign(this.values, values);
    this.#draw();
    this.tell();
  }

  #fields() {
    const { sizes, model, values } = this;
    this.block = el("input", { id: "block", type: "range", min: 0, max: sizes.length - 1, step: 1, disabled: sizes.length < 2, "aria-describedby": "block-ends" });
    this.block.addEventListener("input", () => this.#change({ block: sizes[this.block.value], knobs: without(values.knobs, "steps") }));
    this.blockOut = el("output", { for: "block" });
    const marks = sizes.map((size, index) => el("button", { type: "button", tabindex: -1, "aria-hidden": "true", onclick: () => { this.block.value = index; this.block.dispatchEvent(new Event("input")); } }, String(size)));
    this.rule = pick("rule", model.rules, (rule) => this.#change({ rule, knobs: {} }));
    this.revise = pick("revise", [...model.revisions].sort((a, b) => (b.name === "none") - (a.name === "none")), (revise) => this.#change({ revise }));
    this.ruleAbout = el("p.about", { id: "rule-about" });
    this.reviseAbout = el("p.about", { id: "revise-about" });
    const dice = el("button.quiet.icon", { type: "button", title: "Another seed", "aria-label": "Another seed", onclick: () => this.#change({ seed: Math.floor(Math.random() * 1e6) }) }, icon("dice"));
    return el("div.fields", {},
      el("div.field.blocks", {}, el("div.named", {}, el("label", { for: "block" }, "Block size"), this.blockOut), this.block, el("div.marks", {}, marks),
        el("p.ends", { id: "block-ends" }, el("span", {}, "autoregressive"), sizes.length > 1 ? el("span", {}, "full diffusion") : "the only size it knows")),
      el("div.field", {}, el("label", { for: "rule" }, "Rule"), this.rule, this.ruleAbout, this.knobBox),
      el("div.field", {}, el("label", { for: "revise" }, "Revision"), this.revise, this.reviseAbout),
      el("div.pair", {}, this.#slide("temperature", "Temperature", { min: 0, max: 2, step: 0.05 }), this.#slide("top_p", "Top-p", { min: 0.05, max: 1, step: 0.05 })),
      el("div.pair", {}, this.#number("n", "New tokens", { min: 1, max: 4096 }),
        el("div.field", {}, el("label", { for: "seed" }, "Seed"), el("div.row.tight", {}, this.#seed(), dice))));
  }

  #seed() {
    this.seed = el("input", { id: "seed", type: "number", min: 0, max: 9007199254740991, step: 1 });
    this.seed.addEventListener("change", () => this.seed.checkValidity() && this.#change({ seed: this.seed.valueAsNumber || 0 }));
    return this.seed;
  }

  #slide(name, label, limits) {
    const input = el("input", { id: name, type: "range", ...limits });
    const out = el("output", { for: name });
    input.addEventListener("input", () => this.#change({ [name]: input.valueAsNumber }));
    this[name] = { input, out };
    return el("div.field", {}, el("div.named", {}, el("label", { for: name }, label), out), input);
  }

  #number(name, label, limits) {
    const input = el("input", { id: name, type: "number", step: 1, ...limits });
    input.addEventListener("change", () => input.checkValidity() && this.#change({ [name]: input.valueAsNumber }));
    this[name] = { input };
    return el("div.field", {}, el("label", { for: name }, label), input);
  }

  #draw() {
    const { values, model } = this;
    put(this.block, this.sizes.indexOf(values.block));
    this.block.setAttribute("aria-valuetext", `block of ${values.block}`);
    this.blockOut.textContent = values.block === 1 ? "1 token" : `${values.block} tokens`;
    put(this.rule, values.rule);
    put(this.revise, values.revise);
    this.ruleAbout.textContent = about(model.rules, values.rule);
    this.reviseAbout.textContent = about(model.revisions, values.revise);
    put(this.temperature.input, values.temperature);
    put(this.top_p.input, values.top_p);
    this.temperature.out.textContent = values.temperature.toFixed(2);
    this.top_p.out.textContent = values.top_p.toFixed(2);
    put(this.n.input, values.n);
    put(this.seed, values.seed);
    byId("brief").textContent = this.brief();
    this.#drawKnobs();
  }

  #drawKnobs() {
    const { block, knobs } = this.values;
    const names = this.#knobs();
    const drawn = `${names.join(" ")} ${block}`;
    if (this.knobBox.dataset.drawn !== drawn) {
      this.knobBox.dataset.drawn = drawn;
      this.knobBox.replaceChildren(...names.map((name) => this.#knob(name, block)));
    }
    for (const name of names) {
      const value = knobs[name] ?? KNOBS[name].value(block);
      put(byId(`knob-${name}`), value);
      byId(`knob-${name}`).parentNode.querySelector("output").textContent = String(Number(value.toFixed(3)));
    }
  }

  #knob(name, block) {
    const { label, min, max, step } = KNOBS[name];
    const id = `knob-${name}`;
    const input = el("input", { id, type: "range", min, max: typeof max === "function" ? max(block) : max, step });
    input.addEventListener("input", () => this.#change({ knobs: { ...this.values.knobs, [name]: input.valueAsNumber } }));
    return el("div.field", {}, el("div.named", {}, el("label", { for: id }, label), el("output", { for: id })), input);
  }
}

function pick(id, entries, chosen) {
  const options = entries.map(({ name }) => el("option", { value: name }, name));
  const select = el("select", { id, "aria-describedby": `${id}-about` }, options);
  select.addEventListener("change", () => chosen(select.value));
  return select;
}

function put(input, value) {
  if (input.value !== String(value)) input.value = value;
  if (input.type === "range") {
    const low = Number(input.min);
    input.style.setProperty("--done", (Number(input.value) - low) / (Number(input.max) - low || 1));
  }
}

function about(entries, name) {
  const text = entries.find((entry) => entry.name === name)?.about ?? "";
  // Flags are the command line's.
  return text.replace(/--([a-z-]+)/g, "$1");
}

function without(object, key) {
  const { [key]: _, ...rest } = object;
  return rest;
}

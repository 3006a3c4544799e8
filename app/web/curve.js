// The view Curve: what each block size and rule costs and gives on this machine, as a picture whose points can be tried.

import { complain, json, stream } from "./api.js";
import { byId, clearNotices, el, svg } from "./dom.js";
import { Axes, place, textWidth } from "./plot.js";

// A measurement that another page has begun is looked at so often.
const LOOK_MS = 1500;

const FLAGS = { block: "block", rule: "rule", temperature: "temperature", "top-p": "top_p", n: "n", seed: "seed" };

/** The settings that a point was measured with, from its command. */
export function settingsOf(point) {
  const words = (point.speed_command ?? point.quality_command ?? "").split(" ");
  const values = { knobs: {}, revise: "none" };
  words.forEach((word, index) => {
    const name = word.replace(/^--?/, "");
    if (!word.startsWith("-") || word === "--" || ["samples", "view", "judge", "generate"].includes(name)) return;
    const next = words[index + 1];
    const value = Number.isNaN(Number(next)) ? next : Number(next);
    if (name in FLAGS) values[FLAGS[name]] = value;
    else values.knobs[name] = value;
  });
  return values;
}

/** Sets the view up; `load` takes settings to Write. */
export function curveView(load) {
  const body = byId("curve-body");
  let state = null;
  let busy = false;
  let next = 0;

  async function look() {
    if (busy) return;
    clearTimeout(next);
    try {
      const found = await json("bd3/curve");
      if (busy) return;
      state = found;
      draw();
      if (state.state === "failed") complain(new Error(state.message));
    } catch (error) {
      complain(error);
    }
    if (state?.state === "measuring") next = setTimeout(() => { if (!body.closest("section").hidden) look(); }, LOOK_MS);
  }

  async function measure() {
    const before = state;
    busy = true;
    clearNotices("error");
    state = { state: "measuring", done: 0, of: 0, curve: null };
    draw();
    try {
      for await (const told of stream("bd3/curve", {})) {
        state = told;
        draw();
      }
      if (state.state === "failed") complain(new Error(state.message));
    } catch (error) {
      complain(error);
      state = before;
    }
    busy = false;
    draw();
    // What was not told to its end, or to somebody else, may still go on.
    if (state === before || state.state === "measuring") look();
  }

  function draw() {
    const parts = [];
    if (state.curve) parts.push(...report(state.curve, load));
    if (state.state === "measuring") parts.unshift(progress(state));
    else {
      const text = state.curve ? "Measure again" : "Measure this machine";
      const again = el("button", { type: "button", class: state.curve ? "quiet" : "primary", onclick: measure }, text);
      parts.push(state.curve ? el("div.row", {}, again) : el("div.invite", {}, el("h2", {}, "How fast, and how good?"),
        el("p", {}, "Each block size and rule is a point between speed and quality. Nothing has been measured here yet; it takes some minutes, and the points then open in Write."), again));
    }
    body.replaceChildren(...parts);
  }

  return { shown: look, changed: () => {} };
}

function progress({ done, of }) {
  const bar = el("progress", { "aria-label": "Measured", ...(of ? { max: of, value: done } : {}) });
  const text = of ? `Measuring: ${done} of ${of}` : "Measuring";
  const quiet = "All points are measured in turn, round by round. The quieter the machine, the better the numbers.";
  return el("div.measuring", {}, el("p", {}, text), bar, el("p.hint", {}, quiet));
}

function report(curve, load) {
  const sizes = [...new Set(curve.points.map(({ block }) => block))];
  const name = (path) => path.split(/[/\\]/).at(-1);
  const judge = curve.own_judge ? "itself at block 1" : name(curve.judge);
  const keys = sizes.map((size, index) => el("li", {}, svg("svg", { viewBox: "0 0 12 12", "aria-hidden": "true" }, svg(`circle.dot.k${index % 6}`, { cx: 6, cy: 6, r: 4.5 })), `block ${size}`));
  const hollow = curve.points.some((point) => point.low_entropy);
  return [
    el("header.curve-head", {}, el("h2", {}, `Speed and quality of ${name(curve.model)}, judged by ${judge}`),
      curve.summary ? el("p", {}, sentence(curve.summary)) : null,
      el("ul.keys", {}, keys, el("li", {}, "line: nothing is faster and better"), hollow ? el("li", {}, `hollow: says little, entropy far below ${curve.held_out ? "people's" : "the first"}`) : null)),
    el("figure.plot", {}, picture(curve, sizes, load), el("figcaption", {}, "A point opens in Write with its settings.")),
    table(curve, load),
  ];
}

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;

function picture(curve, sizes, load) {
  const axes = new Axes(curve);
  const root = svg("svg", { viewBox: `0 0 ${axes.width} ${axes.height}`, role: "group", "aria-label": "Perplexity under the judge against tokens per second" });
  root.append(...axes.draw());
  const at = (point) => ({ x: axes.x(point.tokens_per_second), y: axes.y(point.perplexity) });
  const front = curve.points.filter((point) => point.front).map(at).sort((a, b) => a.x - b.x);
  const lines = [];
  if (front.length > 1) {
    const d = front.map(({ x, y }, index) => (index ? `H${x.toFixed(1)}V${y.toFixed(1)}` : `M${x.toFixed(1)} ${y.toFixed(1)}`)).join("");
    root.append(svg("path.front", { d }));
    front.slice(1).forEach((to, index) => lines.push([front[index], { x: to.x, y: front[index].y }], [{ x: to.x, y: front[index].y }, to]));
  }
  const names = curve.points.map((point) => ({ ...at(point), text: point.rule, first: point.front }));
  if (curve.held_out) {
    const y = axes.y(curve.held_out.perplexity);
    const text = `text that people wrote: ${curve.held_out.perplexity.toFixed(1)}`;
    root.append(svg("path.people", { d: `M${axes.left} ${y.toFixed(1)}H${axes.right}` }));
    lines.push([{ x: axes.left, y }, { x: axes.right, y }]);
    root.append(svg("text.label", { x: axes.right - textWidth(text), y: y - 7 }, text));
    names.push({ x: -99, y: -99, text: "", box: [axes.right - textWidth(text) - 4, y - 22, axes.right, y] });
  }
  for (const label of place(names, lines, axes)) {
    if (label.leader) root.append(svg("path.leader", { d: label.leader }));
    root.append(svg("text.label", { x: label.left, y: label.base }, label.text));
  }
  curve.points.forEach((point) => root.append(dot(point, at(point), sizes.indexOf(point.block) % 6, load)));
  return root;
}

function dot(point, { x, y }, colour, load) {
  const text = `block ${point.block}, ${point.rule}: ${point.tokens_per_second.toFixed(0)} tokens/s, perplexity ${point.perplexity.toFixed(1)}`;
  const open = () => load(settingsOf(point));
  const mark = svg(`g.point.k${colour}${point.low_entropy ? ".hollow" : ""}`, { role: "button", tabindex: 0, "aria-label": `${text}. Open in Write.` },
    svg("title", {}, text), svg("circle.hit", { cx: x.toFixed(1), cy: y.toFixed(1), r: 12 }), svg("circle.dot", { cx: x.toFixed(1), cy: y.toFixed(1), r: 5.5 }));
  mark.addEventListener("click", open);
  mark.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    event.stopPropagation();
    open();
  });
  return mark;
}

function table({ points }, load) {
  const number = (value, digits) => (value === null || value === undefined ? "\u2013" : value.toFixed(digits));
  const head = ["block", "rule", "tokens/s", "tokens a pass", "first block, ms", "perplexity", "\u00b1", "entropy", "repeated", ""];
  const rows = points.map((point) => el(point.front ? "tr.front" : "tr", {}, [
    point.block, point.rule, number(point.tokens_per_second, 0), number(point.tokens_per_pass, 2), number(point.first_block_seconds * 1000, 1),
    number(point.perplexity, 1), number(point.stderr, 1), number(point.entropy, 2), number(point.repetition, 3),
  ].map((cell) => el("td", {}, String(cell))), el("td", {}, el("button.quiet", { type: "button", "aria-label": `Open block ${point.block}, ${point.rule} in Write`, onclick: () => load(settingsOf(point)) }, "Write"))));
  return el("details.numbers", {}, el("summary", {}, "The numbers"), el("div.scroll", { tabindex: 0, role: "region", "aria-label": "The numbers" }, el("table", {},
    el("thead", {}, el("tr", {}, head.map((text) => el("th", { scope: "col" }, text)))), el("tbody", {}, rows))));
}

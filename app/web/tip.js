// What is known of a token: its probability, its pass, what else might have stood there, and what stood there before.

import { history } from "./cells.js";
import { byId, el } from "./dom.js";
import { DEEDS, REASONS, confidence, percent } from "./text.js";

/** Shows it beside the token's node. `view` is what the canvas draws. */
export function showTip(node, view, position) {
  const cell = view.cells.list[position];
  const tip = byId("tip");
  if (!cell) return;
  tip.replaceChildren(...content(cell, view, position));
  tip.hidden = false;
  const box = (node.querySelector(".w, .m, .end") ?? node).getBoundingClientRect();
  const own = tip.getBoundingClientRect();
  const left = Math.max(8, Math.min(box.left - 12, innerWidth - own.width - 8));
  const below = box.bottom + 8 + own.height < innerHeight || box.top < own.height + 16;
  tip.style.left = `${left}px`;
  tip.style.top = `${below ? box.bottom + 8 : box.top - own.height - 8}px`;
}

/** Takes it away. */
export function hideTip() {
  byId("tip").hidden = true;
}

function content(cell, { pieces, state }, position) {
  const parts = [];
  const place = el("p.place", {}, `position ${position}`, cell.block >= 0 ? `, block from ${cell.block}` : "");
  if (cell.kind === "given") parts.push(el("p.said", {}, el("b", {}, pieces.show(cell.id)), " given, stays as it is"));
  else if (cell.kind === "mask") parts.push(el("p.said", {}, el("b", {}, "mask"), " not known yet"));
  else {
    parts.push(el("p.said", {}, el("b", {}, pieces.show(cell.id)), el("span.prob", { "data-c": confidence(cell.prob) }, percent(cell.prob))));
    parts.push(el("p", {}, `${DEEDS[cell.by]} in pass ${cell.pass}: ${REASONS[cell.why] ?? cell.why}`));
  }
  if (cell.alternatives?.length) parts.push(alternatives(cell, pieces));
  const steps = history(cell);
  if (steps.length > 1) {
    parts.push(el("h3", {}, "History"), el("ol.history", {}, steps.map((step) => el("li", {}, sentence(step, pieces)))));
  }
  if (position < state.text.length && cell.kind === "token") place.append(", committed");
  return [...parts, place];
}

function alternatives(cell, pieces) {
  const rows = cell.alternatives.map(([id, prob]) => {
    const bar = el("span.bar", {});
    bar.style.setProperty("--share", prob);
    return el(id === cell.id ? "li.own" : "li", {}, el("b", {}, pieces.show(id)), bar, el("span", {}, percent(prob)));
  });
  return el("ul.alternatives", { "aria-label": "Alternatives" }, rows);
}

function sentence({ pass, id, kind, by, prob, why }, pieces) {
  if (by === "you") return "you re-masked it";
  const when = pass ? `pass ${pass}` : "before";
  if (kind === "mask") return `${when}: ${DEEDS[by] ?? by}${prob ? ` at ${percent(prob)}` : ""}, ${REASONS[why] ?? why}`;
  if (kind === "given") return `given: ${pieces.show(id)}`;
  return `${when}: ${DEEDS[by]} with ${pieces.show(id)}, ${percent(prob)}`;
}

// The page: tabs, theme, keys, files that are dropped. Each view is a module of its own.

import { complain, json } from "./api.js";
import { curveView } from "./curve.js";
import { byId, isTyping, relabel } from "./dom.js";
import { infillView } from "./infill.js";
import { noiseView } from "./noise.js";
import { raceView } from "./race.js";
import { Settings } from "./settings.js";
import { hideTip } from "./tip.js";
import { writeView } from "./write.js";

const NAMES = ["write", "race", "noise", "infill", "curve"];
// Views that write with the settings.
const WITH_SETTINGS = ["write", "race", "infill"];
const THEMES = { auto: ["auto", "Theme: as the system"], light: ["sun", "Theme: light"], dark: ["moon", "Theme: dark"] };
const THEME = "bd3-theme";

function theme() {
  const button = byId("theme");
  // A browser may keep nothing for pages.
  const kept = { get: () => { try { return localStorage.getItem(THEME); } catch { return null; } }, set: (name) => { try { localStorage.setItem(THEME, name); } catch { /* until the page is left */ } } };
  let now = kept.get() in THEMES ? kept.get() : "auto";
  const apply = () => {
    if (now === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = now;
    relabel(button, ...THEMES[now]);
  };
  button.addEventListener("click", () => {
    const names = Object.keys(THEMES);
    now = names[(names.indexOf(now) + 1) % names.length];
    kept.set(now);
    apply();
  });
  apply();
}

function title(model) {
  const count = model.parameters;
  const size = count >= 1e9 ? `${(count / 1e9).toFixed(1)} B` : count >= 1e6 ? `${(count / 1e6).toFixed(1)} M` : `${Math.round(count / 1e3)} k`;
  byId("model").textContent = `${model.model} \u00b7 ${size} parameters \u00b7 trained at block ${model.block_sizes.join(", ")}`;
  document.title = `${model.model} \u00b7 bd3`;
}

/** Shows the view that the address names. */
function route(views) {
  const name = NAMES.includes(location.hash.slice(1)) ? location.hash.slice(1) : NAMES[0];
  hideTip();
  for (const other of NAMES) {
    const shown = other === name;
    const tab = byId(`tab-${other}`);
    tab.setAttribute("aria-selected", shown);
    tab.tabIndex = shown ? 0 : -1;
    if (!byId(`view-${other}`).hidden && !shown) views[other].hidden?.();
    byId(`view-${other}`).hidden = !shown;
  }
  byId("settings").hidden = !WITH_SETTINGS.includes(name);
  document.body.dataset.view = name;
  views[name].shown?.();
  return name;
}

function tabs(views) {
  let current = route(views);
  addEventListener("hashchange", () => { current = route(views); });
  document.querySelector("[role=tablist]").addEventListener("keydown", (event) => {
    const at = NAMES.indexOf(current);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1 + NAMES.length, Home: 0, End: NAMES.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    location.hash = NAMES[to % NAMES.length];
    byId(`tab-${NAMES[to % NAMES.length]}`).focus();
  });
  return () => current;
}

/** Keys of the whole page, where no text is written. */
function keys(views, current) {
  addEventListener("keydown", (event) => {
    const view = views[current()];
    if ((event.ctrlKey || event.metaKey) && event.key === "Enter") {
      event.preventDefault();
      view.run?.();
      return;
    }
    if (event.key === "Escape") hideTip();
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
    const player = view.stage?.player ?? view.player;
    const pressed = event.target instanceof Element && event.target.closest("button, a, summary");
    if (event.key === "m" || event.key === "M") view.stage?.remask();
    else if (event.key === " " && player && !pressed) {
      event.preventDefault();
      player.flip();
    } else if ((event.key === "ArrowLeft" || event.key === "ArrowRight") && player) {
      event.preventDefault();
      player.step(event.key === "ArrowLeft" ? -1 : 1);
    }
  });
}

function dropping(open) {
  const veil = byId("drop");
  const carries = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  addEventListener("dragover", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    veil.hidden = false;
  });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) veil.hidden = true; });
  addEventListener("drop", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    veil.hidden = true;
    const [file] = event.dataTransfer.files;
    if (file) open(file);
  });
}

async function begin() {
  theme();
  let model;
  try {
    model = await json("bd3/model");
  } catch (error) {
    complain(error);
    return;
  }
  title(model);
  const settings = new Settings(byId("settings"), model);
  const write = writeView(model, settings);
  const open = (file) => {
    location.hash = "write";
    return write.open(file);
  };
  const load = (values) => {
    settings.load(values);
    location.hash = "write";
    write.run();
  };
  const views = { write, race: raceView(model, settings), noise: noiseView(), infill: infillView(model, settings, open), curve: curveView(load) };
  const current = tabs(views);
  settings.listener = () => views[current()].changed();
  keys(views, current);
  dropping(open);
}

begin();

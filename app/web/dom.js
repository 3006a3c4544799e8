// Small helpers for elements, notices and files.

/** An element: `el("button.primary", {type: "button", onclick: f}, "Write")`. Text goes in as text. */
export function el(name, props = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const node = document.createElement(tag);
  if (classes.length) node.className = classes.join(" ");
  set(node, props);
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** The same in SVG. */
export function svg(name, props = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  if (classes.length) node.setAttribute("class", classes.join(" "));
  set(node, props);
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

function set(node, props) {
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
}

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

const PATHS = {
  play: "M7 4.5v15l12-7.5z",
  pause: "M7 5h3.5v14H7zM13.5 5H17v14h-3.5z",
  first: "M6 5h2.5v14H6zM19 5v14l-9.5-7z",
  back: "M16.5 5v14L7 12z",
  next: "M7.5 5v14L17 12z",
  sun: "M12 7.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9zM11 1.5h2v3.6h-2zM11 18.9h2v3.6h-2zM1.5 11h3.6v2H1.5zM18.9 11h3.6v2h-3.6zM4 5.4 5.4 4l2.6 2.6L6.6 8zM16 17.4l1.4-1.4 2.6 2.6-1.4 1.4zM4 18.6 6.6 16 8 17.4 5.4 20zM16 6.6 18.6 4 20 5.4 17.4 8z",
  moon: "M20 14.6A8.6 8.6 0 0 1 9.4 4 8.6 8.6 0 1 0 20 14.6z",
  auto: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zm0 2.2v13.6a6.8 6.8 0 0 1 0-13.6z",
  dice: "M6 3h12a3 3 0 0 1 3 3v12a3 3 0 0 1-3 3H6a3 3 0 0 1-3-3V6a3 3 0 0 1 3-3zm0 2a1 1 0 0 0-1 1v12a1 1 0 0 0 1 1h12a1 1 0 0 0 1-1V6a1 1 0 0 0-1-1zm2.5 2a1.5 1.5 0 1 1 0 3 1.5 1.5 0 0 1 0-3zm3.5 3.5a1.5 1.5 0 1 1 0 3 1.5 1.5 0 0 1 0-3zm3.5 3.5a1.5 1.5 0 1 1 0 3 1.5 1.5 0 0 1 0-3z",
  close: "M6.4 5 12 10.6 17.6 5 19 6.4 13.4 12l5.6 5.6-1.4 1.4L12 13.4 6.4 19 5 17.6l5.6-5.6L5 6.4z",
};

/** A drawing of one of PATHS. */
export function icon(name) {
  return svg("svg.i", { viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("path", { d: PATHS[name] }));
}

/** Replaces the drawing and the name of a button. */
export function relabel(button, name, label) {
  if (button.getAttribute("aria-label") === label) return;
  button.replaceChildren(icon(name));
  button.setAttribute("aria-label", label);
  button.title = label;
}

/** Says a sentence above the view, until it is closed or another one of its kind comes. */
export function notice(text, kind = "error", extra = null) {
  clearNotices(kind);
  const close = el("button.quiet.icon", { type: "button", "aria-label": "Close this notice" }, icon("close"));
  const box = el(`div.notice.${kind}`, {}, el("p", {}, text), extra, close);
  close.addEventListener("click", () => box.remove());
  byId("notices").append(box);
}

/** Takes away notices of a kind. */
export function clearNotices(kind) {
  for (const box of byId("notices").querySelectorAll(`.${kind}`)) box.remove();
}

/** Lets the reader of the screen hear a sentence, when there is time. */
export function say(text) {
  byId("spoken").textContent = text;
}

/** Hands a text to the browser as a file. */
export function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = el("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/** Calls `f` once `ms` after the last call. */
export function later(f, ms) {
  let timer = 0;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => f(...args), ms);
  };
}

/** Does the reader ask for less motion? */
export const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Is this a place where keys write text? */
export function isTyping(target) {
  return target instanceof Element && target.closest("textarea, select, input, [contenteditable]") !== null;
}

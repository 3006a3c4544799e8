// Light and dark, a small screen, less motion, names and contrast.

import assert from "node:assert/strict";

const VIEWS = ["write", "race", "noise", "infill", "curve"];
const paper = (driver) => driver.page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
const lightness = (colour) => colour.match(/[\d.]+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0) / 765;

// WCAG's ratio of two colours.
const CONTRAST = () => {
  const parse = (colour) => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((part) => (part / 255 <= 0.03928 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((under, [r, g, b, a]) => [r, g, b].map((part, i) => part * a / 255 + under[i] * (1 - a / 255)), [255, 255, 255]);
  };
  const bad = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.checkVisibility() || node.closest("[hidden], .sr, .skip, .fading, svg, :disabled, .idle")) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) bad.push(`${node.tagName}.${node.className} "${node.textContent.trim().slice(0, 18)}" ${ratio.toFixed(2)}`);
  }
  return bad;
};

export const checks = {
  async "light and dark follow the system, and the button overrules it"(driver) {
    const { page } = driver;
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "dark" }]);
    await driver.fresh();
    await driver.write("Once upon a time", 60);
    assert.ok(lightness(await paper(driver)) < 0.2);
    await driver.shot("look-0-dark");
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "light" }]);
    assert.ok(lightness(await paper(driver)) > 0.8);
    const theme = () => page.$eval("#theme", (button) => button.getAttribute("aria-label"));
    assert.equal(await theme(), "Theme: as the system");
    await driver.click("#theme");
    assert.equal(await theme(), "Theme: light");
    await driver.click("#theme");
    assert.ok(lightness(await paper(driver)) < 0.2);
    await driver.fresh();
    assert.equal(await theme(), "Theme: dark", "it is remembered");
    await driver.click("#theme");
  },

  async "text stands out against its ground, in light and dark"(driver) {
    for (const scheme of ["light", "dark"]) {
      await driver.page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
      await driver.fresh();
      await driver.write("Once upon a time", 60);
      await driver.pause(700);
      assert.deepEqual(await driver.page.evaluate(CONTRAST), [], scheme);
    }
    await driver.page.emulateMediaFeatures([]);
  },

  async "at 375 pixels nothing is cut off"(driver) {
    await driver.page.setViewport({ width: 375, height: 740, isMobile: true, hasTouch: true });
    for (const view of VIEWS) {
      await driver.fresh(view);
      if (view === "write") await driver.write("Once upon a time", 40);
      if (view === "race") {
        await driver.fill("#n", 30);
        await driver.page.select("#rule", "threshold");
        await driver.click("#race-form .primary");
        await driver.until(() => document.querySelectorAll("#race-lanes .lane.done").length === 3);
      }
      if (view === "noise") await driver.until(() => document.querySelectorAll(".kind").length === 4);
      if (view === "infill") {
        await driver.click("#infill-form .primary");
        await driver.until(() => document.querySelectorAll("#infill-stage .canvas .tok").length > 0);
        await driver.ended("#infill-stage");
      }
      if (view === "curve") await driver.until(() => document.getElementById("curve-body").childElementCount > 0);
      const wide = await driver.page.evaluate(() => document.documentElement.scrollWidth);
      await driver.shot(`small-${view}`);
      assert.ok(wide <= 375, `${view} is ${wide} pixels wide`);
    }
    await driver.page.setViewport({ width: 1360, height: 900 });
  },

  async "less motion is respected"(driver) {
    await driver.page.emulateMediaFeatures([{ name: "prefers-reduced-motion", value: "reduce" }]);
    await driver.fresh();
    await driver.write("Once upon a time", 32);
    const moving = await driver.page.evaluate(() => document.getAnimations().filter((each) => each.playState === "running").length);
    assert.equal(moving, 0);
    await driver.page.emulateMediaFeatures([]);
  },

  async "every control has a name, and the page its landmarks"(driver) {
    for (const view of VIEWS) {
      await driver.fresh(view);
      if (view === "write") await driver.write("Once upon a time", 16);
      const nameless = await driver.page.evaluate(() => [...document.querySelectorAll("button, input, select, textarea, [role=button], [role=option]")]
        .filter((node) => node.checkVisibility() && !node.closest("[aria-hidden=true]"))
        .filter((node) => !(node.getAttribute("aria-label") || node.labels?.length || node.textContent.trim() || node.classList.contains("blank")))
        .map((node) => node.outerHTML.slice(0, 90)));
      assert.deepEqual(nameless, [], view);
    }
    assert.deepEqual(await driver.page.evaluate(() => ["header", "main", "aside", "h1", "[role=tablist]"].filter((name) => !document.querySelector(name))), []);
  },
};

// Write: a prompt, the canvas, its clock, its tips, the settings.

import assert from "node:assert/strict";

export const checks = {
  async "the page names its model and shows five views"(driver) {
    assert.match(await driver.text("#model"), /parameters/);
    assert.deepEqual(await driver.all('[role="tab"]'), ["Write", "Race", "Noise", "Infill", "Curve"]);
    assert.equal(await driver.page.$eval("#tab-write", (tab) => tab.getAttribute("aria-selected")), "true");
    await driver.shot("write-0-empty");
  },

  async "text appears pass by pass, masks first"(driver) {
    await driver.fill("#n", 40);
    await driver.page.select("#write-stage .transport select", "1");
    await driver.click("#write-form .primary");
    await driver.until(() => document.querySelectorAll("#write-stage .block.open .tok.mask").length > 0 && document.querySelectorAll("#write-stage .tok.token").length > 6);
    await driver.shot("write-1-live");
    const early = await driver.canvas();
    await driver.page.select("#write-stage .transport select", "4");
    await driver.ended();
    const late = await driver.canvas();
    assert.ok(late.startsWith("Once upon a time") && late.length > early.length, late);
    assert.equal((await driver.all("#write-stage .tok.mask")).length - (await driver.all("#write-stage .legend .tok.mask")).length, 0);
    assert.equal(await driver.figure("tokens"), 40);
    assert.ok(await driver.figure("passes") >= 40);
    await driver.shot("write-2-done");
  },

  async "tokens are coloured by confidence, and a legend says so"(driver) {
    const steps = new Set(await driver.all("#write-stage .canvas .tok.token", (nodes) => nodes.map((node) => node.dataset.c)));
    assert.ok(steps.size > 1, `steps ${[...steps]}`);
    const paint = (selector) => driver.page.$eval(selector, (node) => getComputedStyle(node).borderBottomColor + getComputedStyle(node).borderBottomStyle);
    const paints = new Set();
    for (const step of steps) paints.add(await paint(`#write-stage .canvas .tok[data-c="${step}"] .w`));
    assert.equal(paints.size, steps.size);
    assert.match((await driver.all("#write-stage .legend li")).join(" "), /< 10 %.*surer.*given.*mask/);
  },

  async "a token under the pointer shows its probability, its pass and its alternatives"(driver) {
    const tokens = await driver.page.$$("#write-stage .canvas .tok.token .w");
    await tokens[5].hover();
    await driver.until(() => !document.getElementById("tip").hidden);
    const tip = await driver.text("#tip");
    assert.match(tip, /%.*filled in pass \d+: the rule accepted it.*position \d+/);
    const rows = await driver.all("#tip .alternatives li");
    assert.equal(rows.length, 5, "five alternatives");
    const shares = rows.map((row) => Number(row.match(/([\d.]+) %/)[1]));
    assert.deepEqual(shares, [...shares].sort((a, b) => b - a), "best first");
    await driver.shot("write-3-tip", false);
    await driver.page.mouse.move(5, 5);
    await driver.until(() => document.getElementById("tip").hidden);
  },

  async "the slider over the passes goes back and forth"(driver) {
    const whole = await driver.canvas();
    const seek = (frame) => driver.page.$eval("#write-stage .scrub", (node, value) => {
      node.value = value;
      node.dispatchEvent(new Event("input", { bubbles: true }));
    }, frame);
    await seek(10);
    const early = await driver.canvas();
    assert.ok(early.length < whole.length);
    assert.match(await driver.text("#write-stage .where"), /^pass 1\d of \d+$/);
    await driver.shot("write-4-scrubbed");
    await seek(20);
    await seek(10);
    assert.equal(await driver.canvas(), early);
    await seek(100000);
    assert.equal(await driver.canvas(), whole);
    await driver.click('#write-stage [aria-label="One pass back"]');
    assert.notEqual(await driver.canvas(), whole);
    await driver.click('#write-stage [aria-label="To the beginning"]');
    assert.equal((await driver.canvas()).trim(), "Once upon a time");
    await driver.page.select("#write-stage .transport select", "0.25");
    await driver.click("#write-stage .play");
    await driver.pause(250);
    await driver.click("#write-stage .play");
    const paused = await driver.text("#write-stage .where");
    await driver.pause(300);
    assert.equal(await driver.text("#write-stage .where"), paused, "a pause stands still");
  },

  async "the block slider snaps to the trained sizes and acts at once"(driver) {
    await driver.write("Once upon a time", 32);
    const before = await driver.canvas();
    const marks = await driver.all(".marks button");
    assert.equal(await driver.page.$eval("#block", (node) => Number(node.max) + 1), marks.length);
    const at = marks.indexOf("8");
    await driver.fill("#block", at >= 0 ? at : marks.length - 1);
    const size = at >= 0 ? "8" : marks.at(-1);
    await driver.until((text) => document.querySelector("#write-stage .about").textContent.includes(`block ${text}`), size);
    await driver.ended();
    assert.notEqual(await driver.canvas(), before);
    await driver.fill("#block", marks.indexOf("4") >= 0 ? marks.indexOf("4") : 0);
    await driver.until(() => !document.querySelector("#write-stage .about").textContent.includes("block 8"));
    await driver.ended();
    assert.equal(await driver.canvas(), before, "the same seed writes the same again");
  },

  async "a rule brings its knob, and the knob acts at once"(driver) {
    await driver.fill("#block", 2);
    await driver.page.select("#rule", "threshold");
    await driver.until(() => document.getElementById("knob-threshold") && document.querySelector("#write-stage .about").textContent.includes("threshold"));
    await driver.ended();
    const slow = await driver.figure("passes");
    await driver.fill("#knob-threshold", 0.1);
    await driver.until((passes) => {
      const term = [...document.querySelectorAll("#write-stage .figures dt")].find((node) => node.textContent === "passes");
      const now = document.querySelector("#write-stage .where").textContent.match(/of (\d+)$/);
      return term && now && Number(now[1]) < passes;
    }, slow);
    await driver.ended();
    assert.ok(await driver.figure("passes") < slow, "a lower threshold takes fewer passes");
    assert.ok(await driver.figure("a pass") > 1);
    await driver.shot("write-5-threshold");
  },

  async "a sentence tells what the server refuses"(driver) {
    driver.expected = /status of 4/;
    await driver.page.select("#revise", "remdm-cap");
    await driver.until(() => document.querySelector("#notices .notice.error p"));
    assert.match(await driver.text("#notices .notice.error p"), /remdm|ancestral|revise/i);
    await driver.shot("write-6-refused");
    await driver.page.select("#revise", "none");
    await driver.until(() => !document.querySelector("#notices .notice.error"));
    await driver.ended();
    driver.expected = null;
  },

  async "a text that must match does so, in large blocks too"(driver) {
    await driver.fresh();
    await driver.click("#write-must summary");
    await driver.fill("#block", (await driver.all(".marks button")).length - 1);
    await driver.fill("#write-pattern", " [a-z]+ (cat|dog)\\.( [A-Z][a-z ]+\\.){2}");
    await driver.write("Once upon a time", 24);
    const text = await driver.canvas();
    assert.match(text.trimEnd(), /^Once upon a time [a-z]+ (cat|dog)\.( [A-Z][a-z ]+\.){2}$/, text);
    await driver.shot("write-7-must");
    await driver.click("#write-must summary");
    await driver.until(() => document.getElementById("write-must-brief").textContent.includes("cat|dog"));
    driver.expected = /status of 4/;
    await driver.fill("#write-pattern", "(cat");
    await driver.click("#write-form .primary");
    await driver.until(() => document.querySelector("#notices .notice.error p"));
    assert.match(await driver.text("#notices .notice.error p"), /regex/);
    driver.expected = null;
    await driver.click("#write-must summary");
    await driver.click("#write-must .example");
    await driver.until(() => document.querySelector("#write-stage .canvas").textContent.includes(", there was a"));
    await driver.ended();
    assert.equal((await driver.all("#notices .notice.error")).length, 0);
    assert.match(await driver.canvas(), /there was a (cat|dog|fox) named/);
  },

  async "a stop keeps what is there"(driver) {
    await driver.fresh();
    await driver.fill("#n", 200);
    await driver.click("#write-form .primary");
    await driver.until(() => document.querySelectorAll("#write-stage .canvas .tok").length > 6);
    const shown = await driver.page.$eval("#write-form .stop", (button) => !button.hidden && (button.click(), true));
    await driver.until(() => document.querySelector("#write-form .stop").hidden);
    // A small model may have written it all before the button is reached.
    if (shown) assert.ok((await driver.canvas()).startsWith("Once upon a time"));
    assert.equal((await driver.all("#notices .error")).length, 0);
  },
};

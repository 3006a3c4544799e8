// Race: three block sizes on one clock.

import assert from "node:assert/strict";

export const checks = {
  async "three lanes race on one clock"(driver) {
    await driver.fresh("race");
    await driver.page.select("#rule", "threshold");
    await driver.fill("#knob-threshold", 0.4);
    await driver.fill("#n", 60);
    await driver.click("#race-form .primary");
    await driver.until(() => document.querySelectorAll("#race-lanes .tok.token").length > 20);
    await driver.shot("race-0-running");
    const heads = await driver.all("#race-lanes h2");
    assert.deepEqual(heads, ["Autoregressive", "Block diffusion", "Full diffusion"]);
    await driver.until(() => document.querySelectorAll("#race-lanes .lane.done").length === 3);
    await driver.shot("race-1-done");
    const lanes = await driver.all("#race-lanes .lane", (nodes) => nodes.map((lane) => [...lane.querySelectorAll("dd")].map((node) => Number(node.textContent))));
    for (const [passes, tokens, seconds, rate] of lanes) assert.ok(passes > 0 && tokens === 60 && seconds > 0 && rate > 0, JSON.stringify(lanes));
    assert.equal(lanes[0][0] >= 60, true, "one token a pass at block 1");
  },

  async "the clock goes back for all of them"(driver) {
    const text = () => driver.all("#race-lanes .canvas", (nodes) => nodes.map((node) => node.textContent.length));
    const whole = await text();
    const end = await driver.page.$eval("#race-bar .scrub", (node) => Number(node.max));
    const seconds = await driver.all("#race-lanes .lane", (nodes) => nodes.map((lane) => Number(lane.querySelectorAll("dd")[2].textContent)));
    await driver.fill("#race-bar .scrub", Math.min(...seconds) * 1000 / 2);
    const early = await text();
    early.forEach((length, lane) => assert.ok(length < whole[lane], `lane ${lane}`));
    await driver.fill("#race-bar .scrub", end);
    assert.deepEqual(await text(), whole);
  },

  async "the slider changes the lane in the middle"(driver) {
    const marks = await driver.all(".marks button");
    await driver.fill("#block", marks.indexOf("8"));
    await driver.until(() => [...document.querySelectorAll("#race-lanes header p")].some((node) => node.textContent === "block 8"));
    await driver.until(() => document.querySelectorAll("#race-lanes .lane.done").length === 3);
  },

  async "with look-back they race without it, and that is said"(driver) {
    await driver.fresh("race");
    const hint = await driver.text("#race-form .hint");
    await driver.fill("#n", 24);
    await driver.page.select("#revise", "look-back");
    await driver.until(() => /None looks back: block \d+ has/.test(document.querySelector("#race-form .hint").textContent));
    await driver.click("#race-form .primary");
    await driver.until(() => document.querySelectorAll("#race-lanes .lane.done").length === 3);
    assert.deepEqual(await driver.all("#notices .error p"), []);
    await driver.shot("race-2-look-back");
    await driver.page.select("#revise", "none");
    await driver.until((text) => document.querySelector("#race-form .hint").textContent === text, hint);
  },
};

// Noise, infill, curve.

import assert from "node:assert/strict";

const TEXT = "Once upon a time there was a little dog.";

export const checks = {
  async "noise rises on the reader's text, kinds side by side"(driver) {
    await driver.fresh("noise");
    await driver.fill("#noise-text", TEXT);
    await driver.click("#noise-form .primary");
    await driver.until((text) => document.querySelectorAll("#noise-kinds .kind").length === 4 && document.querySelector(".noised").childElementCount <= text.split(" ").length + 3, TEXT);
    assert.deepEqual(await driver.all("#noise-kinds h2"), ["mask", "uniform", "semantic", "mixed"]);
    const at = async (level) => {
      await driver.fill("#noise-level", level);
      return driver.all("#noise-kinds .counts", (nodes) => nodes.map((node) => Number(node.textContent.match(/^(\d+) of/)[1])));
    };
    assert.deepEqual(await at(0), [0, 0, 0, 0]);
    assert.deepEqual((await driver.all(".noised"))[0], TEXT);
    const half = await at(10);
    await driver.shot("noise-0-half");
    const full = await at(20);
    full.forEach((count, kind) => assert.ok(count >= half[kind] && count > 0, `${half} ${full}`));
    assert.ok((await driver.page.$$(".kind:first-child .tok.mask")).length > 5);
    await at(3);
    await driver.click("#noise-bar .play");
    await driver.until(() => document.querySelector("#noise-level").valueAsNumber > 4);
    await driver.click("#noise-bar .play");
  },

  async "holes fill, and the text around them stays"(driver) {
    await driver.fresh("infill");
    await driver.fill("#infill-text", "Once ___{2,3} there was a ___{3,5} who lived in a ___.");
    await driver.page.select("#infill-stage .transport select", "1");
    await driver.click("#infill-form .primary");
    await driver.until(() => document.querySelectorAll("#infill-stage .canvas .tok.mask[role=option]").length > 0);
    await driver.shot("infill-0-holes");
    await driver.until(() => document.querySelector("#infill-form .stop").hidden);
    await driver.ended("#infill-stage");
    const text = await driver.canvas("#infill-stage");
    assert.match(text.trim(), /^Once .+ there was a .+ who lived in a .+\.$/s);
    const given = await driver.all("#infill-stage .canvas .tok.given");
    assert.ok(given.length >= 10 && given.join("").includes(" who lived in"));
    await driver.shot("infill-1-filled");
  },

  async "a hole that is no hole is refused in a sentence"(driver) {
    driver.expected = /status of 4/;
    await driver.fill("#infill-text", "Once ___{9,3} a time");
    await driver.click("#infill-form .primary");
    await driver.until(() => document.querySelector("#notices .error p"));
    assert.ok((await driver.text("#notices .error p")).length > 20);
    driver.expected = null;
  },

  async "the curve is measured with a progress bar, and its points open in Write"(driver) {
    await driver.fresh("curve");
    await driver.until(() => document.getElementById("curve-body").childElementCount > 0);
    if (!(await driver.page.$(".plot"))) {
      await driver.shot("curve-0-none");
      await driver.click("#curve-body button.primary");
      await driver.until(() => document.querySelector("#curve-body progress")?.value > 0);
      await driver.shot("curve-1-measuring");
    }
    await driver.page.waitForFunction(() => document.querySelector(".plot svg") && !document.querySelector("#curve-body progress"), { timeout: Number(process.env.CURVE_TIMEOUT_MS ?? 1500000), polling: 200 });
    const points = await driver.all(".plot .point", (nodes) => nodes.map((node) => node.getAttribute("aria-label")));
    assert.ok(points.length > 1 && /block \d+, .+: \d+ tokens\/s, perplexity [\d.]+/.test(points[0]), points[0]);
    const axes = (await driver.all(".plot text.name")).join(" ");
    assert.match(axes, /tokens per second.*perplexity under the judge/);
    await driver.shot("curve-2-drawn");
    const overlaps = await driver.all(".plot text.label", (nodes) => {
      const boxes = nodes.map((node) => node.getBoundingClientRect());
      return boxes.filter((a, i) => boxes.some((b, j) => j > i && a.left < b.right - 2 && b.left < a.right - 2 && a.top < b.bottom - 3 && b.top < a.bottom - 3)).length;
    });
    assert.equal(overlaps, 0, "no name lies on another");
    const index = points.findIndex((point) => /threshold/.test(point));
    const [, block] = points[Math.max(0, index)].match(/block (\d+)/);
    await driver.page.evaluate((at) => document.querySelectorAll(".plot .point")[at].focus(), Math.max(0, index));
    await driver.page.keyboard.press("Enter");
    await driver.until(() => location.hash === "#write" && document.querySelectorAll("#write-stage .tok.token").length > 20);
    assert.match(await driver.text("#write-stage .about"), new RegExp(`block ${block} `));
    if (index >= 0) assert.equal(await driver.page.$eval("#rule", (node) => node.value), "threshold");
  },

  async "a curve that is there is measured again, and who comes second watches"(driver) {
    await driver.fresh("curve");
    await driver.until(() => document.querySelector(".plot svg"));
    const state = () => driver.page.evaluate(async () => (await fetch("bd3/curve")).json());
    const rates = ({ curve }) => JSON.stringify(curve.points.map((point) => point.tokens_per_second));
    const before = rates(await state());
    // Another page, as it were, is first.
    await driver.page.evaluate(() => { fetch("bd3/curve", { method: "POST", headers: { "content-type": "application/json" }, body: "{}" }); });
    while ((await state()).state !== "measuring") await driver.pause(20);
    driver.expected = /status of 409/;
    await driver.click("#curve-body > .row button");
    await driver.until(() => document.querySelector("#notices .error p") && document.querySelector("#curve-body progress")?.max > 1);
    assert.match(await driver.text("#notices .error p"), /is being measured/);
    await driver.page.waitForFunction(() => document.querySelector(".plot svg") && !document.querySelector("#curve-body progress"), { timeout: Number(process.env.CURVE_TIMEOUT_MS ?? 1500000), polling: 200 });
    driver.expected = null;
    const after = await state();
    assert.equal(after.state, "done");
    assert.notEqual(rates(after), before, "it has been measured");
  },
};

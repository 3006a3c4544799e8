// Everything without a mouse.

import assert from "node:assert/strict";

const focus = (driver) => driver.page.evaluate(() => {
  const node = document.activeElement;
  return node.id || node.getAttribute("aria-label") || node.textContent.trim().slice(0, 30) || node.tagName;
});

export const checks = {
  async "tabs are reached and changed by keys"(driver) {
    await driver.fresh();
    await driver.page.focus("#tab-write");
    await driver.page.keyboard.press("ArrowRight");
    await driver.until(() => location.hash === "#race" && document.activeElement.id === "tab-race");
    await driver.page.keyboard.press("End");
    await driver.until(() => location.hash === "#curve");
    await driver.page.keyboard.press("Home");
    await driver.until(() => location.hash === "#write" && !document.getElementById("view-write").hidden);
    const selected = await driver.all('[role="tab"][aria-selected="true"]');
    assert.deepEqual(selected, ["Write"]);
  },

  async "tab goes through every control, and focus is always seen"(driver) {
    await driver.fresh();
    await driver.write("Once upon a time", 16);
    await driver.page.evaluate(() => document.activeElement.blur());
    const seen = [];
    for (let step = 0; step < 45; step += 1) {
      await driver.page.keyboard.press("Tab");
      const now = await focus(driver);
      if (seen.includes(now)) break;
      seen.push(now);
      const outlined = await driver.page.evaluate(() => {
        const node = document.activeElement;
        if (node === document.body) return true;
        const shown = [node, ...node.querySelectorAll("*"), node.nextElementSibling].filter(Boolean);
        return shown.some((part) => getComputedStyle(part).outlineStyle !== "none");
      });
      assert.ok(outlined, `${now} shows its focus`);
    }
    for (const name of ["tab-write", "theme", "write-prompt", "Play", "Passes", "Speed", "block", "rule", "revise", "temperature", "top_p", "n", "seed"]) {
      assert.ok(seen.includes(name), `${name} is reached; reached were ${seen.join(", ")}`);
    }
  },

  async "space and arrows move the replay, and leave text fields alone"(driver) {
    await driver.page.evaluate(() => document.activeElement.blur());
    const where = () => driver.text("#write-stage .where");
    const end = await where();
    await driver.page.keyboard.press("ArrowLeft");
    assert.notEqual(await where(), end);
    await driver.page.keyboard.press("ArrowRight");
    assert.equal(await where(), end);
    await driver.page.keyboard.press("Space");
    await driver.until(() => document.querySelector("#write-stage .play").getAttribute("aria-label") === "Pause");
    await driver.page.keyboard.press("Space");
    await driver.until(() => document.querySelector("#write-stage .play").getAttribute("aria-label") === "Play");
    const paused = await where();
    await driver.page.focus("#write-prompt");
    await driver.page.keyboard.press("End");
    await driver.page.keyboard.press("Space");
    await driver.page.keyboard.press("ArrowLeft");
    await driver.page.keyboard.press("m");
    assert.match(await driver.page.$eval("#write-prompt", (node) => node.value), /m $/);
    assert.equal(await where(), paused);
    await driver.page.keyboard.down("Control");
    await driver.page.keyboard.press("Enter");
    await driver.page.keyboard.up("Control");
    await driver.until(() => document.querySelector("#write-stage .canvas").textContent.includes("timem"));
    await driver.ended();
  },

  async "tokens are reached one by one, say what they are, and can be rewritten"(driver) {
    await driver.page.focus('#write-stage .canvas [tabindex="0"]');
    await driver.page.keyboard.press("End");
    for (let step = 0; step < 4; step += 1) await driver.page.keyboard.press("ArrowLeft");
    await driver.until(() => !document.getElementById("tip").hidden);
    assert.equal(await driver.page.evaluate(() => document.activeElement.getAttribute("aria-describedby")), "tip");
    assert.match(await driver.text("#tip"), /filled in pass/);
    await driver.page.keyboard.down("Shift");
    for (let step = 0; step < 2; step += 1) await driver.page.keyboard.press("ArrowRight");
    await driver.page.keyboard.up("Shift");
    const chosen = await driver.all('#write-stage .tok[aria-selected="true"]', (all) => all.map((node) => Number(node.dataset.p)));
    assert.equal(chosen.length, 3);
    await driver.shot("keyboard-0-chosen", false);
    await driver.page.select("#write-stage .transport select", "0.25");
    await driver.page.focus('#write-stage .canvas [tabindex="0"]');
    await driver.page.keyboard.press("m");
    await driver.until((position) => document.querySelectorAll("#write-stage .canvas .tok")[position]?.classList.contains("mask"), chosen[0]);
    await driver.until(() => document.querySelector("#write-form .stop").hidden);
    await driver.ended();
    await driver.page.keyboard.press("Escape");
    assert.equal(await driver.page.$eval("#tip", (tip) => tip.hidden), true);
  },

  async "committed text is said politely, and not token by token"(driver) {
    await driver.fresh();
    await driver.page.evaluate(() => {
      window.heard = [];
      new MutationObserver(() => window.heard.push(document.getElementById("spoken").textContent)).observe(document.getElementById("spoken"), { childList: true, characterData: true, subtree: true });
    });
    await driver.write("Once upon a time", 40);
    const heard = await driver.page.evaluate(() => window.heard.filter((text) => text));
    assert.equal(await driver.page.$eval("#spoken", (node) => node.getAttribute("aria-live")), "polite");
    assert.ok(heard.length > 0 && heard.length < 8, `${heard.length} announcements`);
    assert.ok((await driver.canvas()).includes(heard.at(-1).trim()));
  },
};

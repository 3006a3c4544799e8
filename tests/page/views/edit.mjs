// Revision in sight, and the reader's own: tokens taken out and written anew.

import assert from "node:assert/strict";

export const checks = {
  async "what is taken back fades, and its first token stands struck with the reason"(driver) {
    await driver.fresh();
    await driver.page.select("#revise", "look-back");
    let fading = 0;
    for (let seed = 1; seed < 30 && !fading; seed += 1) {
      await driver.fill("#seed", seed);
      await driver.write("Once upon a time", 64);
      // Frame by frame, as a person who scrubs sees it.
      const last = await driver.page.$eval("#write-stage .scrub", (node) => Number(node.max));
      for (let frame = 0; frame <= last && !fading; frame += 1) {
        await driver.fill("#write-stage .scrub", frame);
        fading = (await driver.all("#write-stage .block.fading del")).length;
      }
    }
    assert.equal(fading, 1);
    assert.ok((await driver.text("#write-stage .block.fading del")).trim().length > 0);
    await driver.shot("edit-0-taken-back");
  },

  async "a revised token stands struck beside its successor, until it is asked to stay"(driver) {
    await driver.page.select("#revise", "remask");
    await driver.fill("#block", 2);
    await driver.write("Once upon a time", 64);
    await driver.click("#write-stage .check input");
    const struck = await driver.all("#write-stage .canvas del.struck");
    assert.ok(struck.length > 0, "some token was masked again");
    assert.match(struck[0], /unlikely/);
    const node = (await driver.page.$$("#write-stage .canvas .tok:has(del) .w"))[0];
    await node.hover();
    assert.match(await driver.text("#tip"), /History.*filled with.*re-masked/);
    await driver.shot("edit-1-struck", false);
    await driver.click("#write-stage .check input");
    assert.ok((await driver.all("#write-stage .canvas del.struck")).length < struck.length);
    await driver.page.select("#revise", "none");
  },

  async "tokens chosen with the mouse are re-masked and written anew in place"(driver) {
    await driver.fresh();
    await driver.write("Once upon a time", 40);
    const before = await driver.all("#write-stage .canvas .tok");
    const nodes = await driver.page.$$("#write-stage .canvas .tok.token .w");
    // Where the model was least sure, it will hardly write the same again.
    const steps = await driver.all("#write-stage .canvas .tok.token:has(.w)", (all) => all.map((node) => Number(node.dataset.c)));
    const sums = steps.slice(0, -6).map((_, at) => steps.slice(at, at + 6).reduce((sum, step) => sum + step, 0));
    const first = sums.indexOf(Math.min(...sums));
    const from = await nodes[first].boundingBox();
    const to = await nodes[first + 5].boundingBox();
    await driver.page.mouse.move(from.x + 1, from.y + from.height / 2);
    await driver.page.mouse.down();
    await driver.page.mouse.move(to.x + to.width - 1, to.y + to.height / 2, { steps: 8 });
    await driver.page.mouse.up();
    // The page hears of a drag in pieces, the last of them a moment after its end.
    await driver.until(() => document.querySelectorAll('#write-stage .tok[aria-selected="true"]').length >= 5);
    await driver.until(() => !document.querySelector("#write-stage .selection").hidden);
    const chosen = await driver.all('#write-stage .tok[aria-selected="true"]', (all) => all.map((node) => Number(node.dataset.p)));
    assert.ok(chosen.length >= 5 && chosen.length <= 7, `chosen: ${chosen}`);
    await driver.shot("edit-2-chosen", false);
    await driver.page.select("#write-stage .transport select", "0.25");
    await driver.click("#write-stage .selection .primary");
    await driver.until(() => document.querySelectorAll("#write-stage .canvas .tok.mask").length > 0);
    await driver.shot("edit-3-rewriting", false);
    const gone = await driver.all("#write-stage .canvas .tok.mask del");
    assert.ok(gone.length > 0 && gone.every((text) => !text.includes("\u2205")), `struck: ${gone}`);
    await driver.until(() => document.querySelector("#write-form .stop").hidden);
    await driver.ended();
    const strip = (nodes) => nodes.map((node) => {
      const copy = node.cloneNode(true);
      copy.querySelector("del")?.remove();
      return copy.textContent;
    });
    const after = await driver.all("#write-stage .canvas .tok", strip);
    assert.equal(after.length, before.length);
    after.forEach((text, index) => { if (!chosen.includes(index)) assert.equal(text, before[index], `position ${index}`); });
    assert.ok(chosen.some((position) => after[position] !== before[position]), "something else stands there");
    assert.match(await driver.text("#write-stage .about"), /block/);
    await driver.shot("edit-4-rewritten", false);
    await driver.click("#write-stage .actions button:not([hidden])");
    assert.deepEqual(await driver.all("#write-stage .canvas .tok", strip), before, "undone");
  },

  async "with look-back tokens are rewritten too, and a rewrite that fails leaves nothing to undo"(driver) {
    await driver.fresh();
    await driver.page.select("#revise", "look-back");
    await driver.write("Once upon a time", 24);
    const about = () => driver.text("#write-stage .about");
    assert.match(await about(), /block 4 /);
    await driver.remask();
    await driver.until(() => /block 32 /.test(document.querySelector("#write-stage .about").textContent));
    await driver.until(() => document.querySelector("#write-form .stop").hidden);
    await driver.ended();
    assert.deepEqual(await driver.all("#notices .error p"), []);
    await driver.page.evaluate(() => {
      const { fetch } = window;
      window.fetch = async () => {
        window.fetch = fetch;
        return new Response(JSON.stringify({ error: { message: "The model is out." } }), { status: 500 });
      };
    });
    await driver.remask();
    await driver.until(() => document.querySelector("#notices .error p")?.textContent === "The model is out.");
    await driver.click("#write-stage .actions button:not([hidden])");
    assert.match(await about(), /block 4 /, "undone is the rewrite before it");
    assert.equal(await driver.page.$eval("#write-stage .actions button", (button) => button.hidden), true);
    await driver.page.select("#revise", "none");
  },
};

// Traces: written by the page, read by the page and by the program, and mistrusted.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

async function open(driver, path) {
  const input = await driver.page.$('#write-stage input[type="file"]');
  await input.uploadFile(path);
}

let saved = null;

export const checks = {
  async "a sample is kept as a trace"(driver) {
    await driver.fresh();
    await driver.write("Once upon a time", 32);
    const model = (await driver.text("#write-stage .about")).split(" ")[0];
    const path = join(driver.folder, `${model}-0.jsonl`);
    rmSync(path, { force: true });
    await driver.page.evaluate(() => [...document.querySelectorAll("#write-stage .actions button")].find((node) => node.textContent === "Download trace").click());
    for (let tries = 0; tries < 100 && !existsSync(path); tries += 1) await driver.pause(50);
    const lines = readFileSync(path, "utf8").trimEnd().split("\n");
    assert.ok(lines.every((line) => /,"sum":"[0-9a-f]{16}"\}$/.test(line)));
    assert.equal(JSON.parse(lines[0]).bd3_trace, 1);
    saved = { path, text: await driver.canvas() };
  },

  async "the program reads it"() {
    if (!process.env.BD3) return "BD3 names no program";
    const text = execFileSync(process.env.BD3, ["replay", saved.path, "--view", "text"], { encoding: "utf8" });
    assert.equal(`Once upon a time${text}`.trimEnd(), saved.text.trimEnd());
    return "";
  },

  async "a trace that is opened is shown, and said to be sound"(driver) {
    await driver.fresh();
    await open(driver, saved.path);
    await driver.until(() => document.querySelector("#notices .done p"));
    assert.match(await driver.text("#notices .done p"), /every sum and every state agrees/);
    await driver.ended();
    assert.equal(await driver.canvas(), saved.text);
    await driver.shot("trace-0-opened", false);
  },

  async "a trace that is dropped is shown"(driver) {
    await driver.fresh("noise");
    const text = readFileSync(saved.path, "utf8");
    await driver.page.evaluate((content) => {
      const data = new DataTransfer();
      data.items.add(new File([content], "story.jsonl"));
      for (const type of ["dragover", "drop"]) dispatchEvent(new DragEvent(type, { dataTransfer: data, cancelable: true, bubbles: true }));
    }, text);
    await driver.until(() => document.querySelector("#notices .done p") && location.hash === "#write");
    await driver.ended();
    assert.equal(await driver.canvas(), saved.text);
  },

  async "a changed byte is noticed in a sentence"(driver) {
    await driver.fresh();
    const bytes = readFileSync(saved.path);
    const at = bytes.indexOf('"prob":0.') + 10;
    bytes[at] = bytes[at] === 0x31 ? 0x32 : 0x31;
    const path = join(driver.folder, "changed.jsonl");
    writeFileSync(path, bytes);
    await open(driver, path);
    await driver.until(() => document.querySelector("#notices .error p"));
    assert.match(await driver.text("#notices .error p"), /^changed\.jsonl: expected a sound line \d+, found a line that is not as it was written/);
    assert.equal((await driver.all("#write-stage .canvas .tok.token")).length, 0);
    await driver.shot("trace-1-changed", false);
  },
};

// Drives the page of `bd3 serve` in a real browser and asserts what a person would see.
//
//     node page.mjs URL [FOLDER]
//
// URL is a running server's; screenshots go to FOLDER. CHROMIUM names the browser (/usr/bin/chromium), BD3 the program that has to
// read a trace which the page wrote, ONLY the checks to run, as a pattern. Prints a line for each check; exits with 1 where one fails.

import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import puppeteer from "puppeteer-core";

import { Driver } from "./driver.mjs";
import * as chat from "./views/chat.mjs";
import * as edits from "./views/edit.mjs";
import * as keyboard from "./views/keyboard.mjs";
import * as looks from "./views/looks.mjs";
import * as others from "./views/others.mjs";
import * as race from "./views/race.mjs";
import * as traces from "./views/traces.mjs";
import * as write from "./views/write.mjs";

const [url, folder = mkdtempSync(join(tmpdir(), "bd3-page-"))] = process.argv.slice(2);
if (!url) {
  console.error("usage: node page.mjs URL [FOLDER]");
  process.exit(2);
}
mkdirSync(folder, { recursive: true });

const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  protocolTimeout: 1800000,
  args: ["--no-sandbox", "--disable-dev-shm-usage", "--force-color-profile=srgb"],
});
let failed = 0;
let count = 0;
try {
  const driver = await Driver.open(browser, url, folder);
  const filter = process.env.ONLY && new RegExp(process.env.ONLY);
  for (const part of [write, chat, edits, traces, race, others, keyboard, looks]) {
    for (const [name, check] of Object.entries(part.checks)) {
      if (filter && !filter.test(name)) continue;
      count += 1;
      try {
        const skipped = await check(driver);
        console.log(skipped ? `skip  ${name}: ${skipped}` : `ok    ${name}`);
      } catch (error) {
        failed += 1;
        console.log(`FAIL  ${name}: ${String(error.message).split("\n").slice(0, 6).join(" ")}`);
        await driver.shot(`failed-${failed}`).catch(() => {});
      }
    }
  }
  for (const [name, list] of [["no error in the console", driver.complaints], ["no request elsewhere", driver.outside]]) {
    count += 1;
    try {
      assert.deepEqual(list, []);
      console.log(`ok    ${name}`);
    } catch {
      failed += 1;
      console.log(`FAIL  ${name}: ${list.slice(0, 5).join("; ")}`);
    }
  }
} finally {
  await browser.close();
}
console.log(`${count - failed} of ${count} checks passed; screenshots in ${folder}`);
process.exit(failed ? 1 : 0);

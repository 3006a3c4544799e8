// The picture of the page in the README: a text, and the alternatives of one of its tokens.
//
//     npm install && node picture.mjs URL FOLDER
//
// URL is a running server's; the picture goes to FOLDER/page.png. CHROMIUM names the browser (/usr/bin/chromium).

import puppeteer from "puppeteer-core";

import { Driver } from "./driver.mjs";

const [url, folder] = process.argv.slice(2);
if (!folder) {
  console.error("usage: node picture.mjs URL FOLDER");
  process.exit(2);
}
const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-dev-shm-usage", "--force-color-profile=srgb"],
});
try {
  const driver = await Driver.open(browser, url, folder);
  await driver.page.setViewport({ width: 1180, height: 640, deviceScaleFactor: 1.5 });
  await driver.fill("#seed", 1);
  await driver.write("Once upon a time", 60);
  const tokens = await driver.page.$$("#write-stage .canvas .tok.token .w");
  await tokens[8].hover();
  await driver.until(() => !document.getElementById("tip").hidden);
  await driver.page.evaluate(() => window.scrollTo(0, 0));
  await driver.shot("page", false);
} finally {
  await browser.close();
}

// What all checks need of the browser.

import { join } from "node:path";

const WAIT = { timeout: Number(process.env.PAGE_TIMEOUT_MS ?? 120000), polling: 40 };

export class Driver {
  static async open(browser, url, folder) {
    const driver = new Driver();
    Object.assign(driver, { browser, url, folder, complaints: [], outside: [], expected: null });
    driver.page = await browser.newPage();
    await driver.page.setViewport({ width: 1360, height: 900 });
    const origin = new URL(url).origin;
    driver.page.on("request", (request) => {
      const to = request.url();
      if (!to.startsWith(origin) && !to.startsWith("data:") && !to.startsWith("blob:")) driver.outside.push(to);
    });
    driver.page.on("pageerror", (error) => driver.complaints.push(error.message));
    driver.page.on("console", (message) => {
      // A request that a check makes fail on purpose is told by the browser too.
      if (message.type() === "error" && !(driver.expected && driver.expected.test(message.text()))) driver.complaints.push(message.text());
    });
    const session = await driver.page.createCDPSession();
    await session.send("Browser.setDownloadBehavior", { behavior: "allow", downloadPath: folder, eventsEnabled: true });
    await driver.fresh();
    return driver;
  }

  /** The page anew, in a view. */
  async fresh(view = "write") {
    await this.page.goto("about:blank");
    await this.page.goto(`${this.url.replace(/\/$/, "")}/#${view}`);
    await this.page.waitForFunction(() => document.querySelector("#settings select") !== null, WAIT);
  }

  until(test, ...values) {
    return this.page.waitForFunction(test, WAIT, ...values);
  }

  text(selector) {
    return this.page.$eval(selector, (node) => node.textContent);
  }

  all(selector, read = (nodes) => nodes.map((node) => node.textContent)) {
    return this.page.$$eval(selector, read);
  }

  click(selector) {
    return this.page.click(selector);
  }

  /** Puts a value into a field as a person does: the page hears of it. */
  fill(selector, value) {
    return this.page.$eval(selector, (node, text) => {
      node.value = text;
      node.dispatchEvent(new Event("input", { bubbles: true }));
      node.dispatchEvent(new Event("change", { bubbles: true }));
    }, String(value));
  }

  /** A figure above a canvas, as a number. */
  figure(name, stage = "#write-stage") {
    return this.page.$eval(stage, (box, label) => {
      const term = [...box.querySelectorAll(".figures dt")].find((node) => node.textContent === label);
      return Number(term.nextElementSibling.textContent);
    }, name);
  }

  /** The text on a canvas, without what is struck. */
  canvas(stage = "#write-stage") {
    return this.page.$eval(`${stage} .canvas`, (box) => {
      const copy = box.cloneNode(true);
      for (const gone of copy.querySelectorAll("del, .end, .spare")) gone.remove();
      if (box.classList.contains("answer")) for (const given of copy.querySelectorAll(".given")) given.remove();
      return copy.textContent;
    });
  }

  /** Waits until a sample has come whole and its replay has ended. */
  async ended(stage = "#write-stage") {
    await this.until((selector) => {
      const box = document.querySelector(selector);
      const where = box.querySelector(".where").textContent.match(/^pass (\d+) of (\d+)$/);
      return where && where[1] === where[2] && box.querySelector(".play").getAttribute("aria-label") === "Play" && !box.querySelector('.play').disabled;
    }, stage);
  }

  /** Writes with these settings, fast, and waits for the end. */
  async write(prompt = "Once upon a time", tokens = 32) {
    await this.fill("#write-prompt", prompt);
    await this.fill("#n", tokens);
    await this.page.select("#write-stage .transport select", "4");
    await this.click("#write-form .primary");
    await this.until(() => document.querySelectorAll("#write-stage .tok").length > 0 && document.querySelector("#write-form .stop").hidden);
    await this.pause(300);
    await this.ended();
  }

  /** Selects three tokens near the end by keys, and re-masks them. */
  async remask() {
    await this.page.focus('#write-stage .canvas [tabindex="0"]');
    await this.page.keyboard.press("End");
    for (let step = 0; step < 4; step += 1) await this.page.keyboard.press("ArrowLeft");
    await this.page.keyboard.down("Shift");
    for (let step = 0; step < 2; step += 1) await this.page.keyboard.press("ArrowRight");
    await this.page.keyboard.up("Shift");
    await this.page.keyboard.press("m");
  }

  pause(ms) {
    return new Promise((done) => setTimeout(done, ms));
  }

  shot(name, full = true) {
    return this.page.screenshot({ path: join(this.folder, `${name}.png`), fullPage: full });
  }
}

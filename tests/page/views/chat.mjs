// A conversation, where the model has a chat template.

import assert from "node:assert/strict";

export const checks = {
  async "a message is answered, and the next one goes on from it"(driver) {
    await driver.fresh();
    if (await driver.page.$eval("#write-modes", (box) => box.hidden)) return "this model has no chat template";
    await driver.page.evaluate(() => document.querySelector('#write-modes input[value="chat"]').click());
    assert.equal(await driver.text("#write-label"), "Message");
    await driver.write("What is the capital of France? Answer in one word.", 24);
    const answer = (await driver.canvas()).trim();
    assert.ok(answer.length > 0 && !answer.includes("What is the capital"), answer);
    await driver.shot("chat-0-answered");
    await driver.until(() => document.querySelector("#write-form .reply"));
    await driver.click("#write-form .reply");
    assert.deepEqual((await driver.all("#write-turns p")).length, 2);
    await driver.write("And of Italy?", 24);
    assert.equal((await driver.all("#write-turns p")).length, 2);
    await driver.shot("chat-1-reply");
    return "";
  },
};

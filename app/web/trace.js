// A sample as a file (docs/events.md): JSON lines, each ended by a sum over the file so far. Written here, `bd3 replay` reads it;
// read here, a changed byte is noticed.

import { EMPTY, addBytes, hex } from "./hash.js";
import { Contradiction } from "./state.js";
import { Timeline } from "./timeline.js";

const TAIL = ',"sum":"0123456789abcdef"}'.length;

/** The text of a trace file that holds these lines. */
export function writeTrace(lines) {
  const encoder = new TextEncoder();
  let sum = EMPTY;
  return lines.map((line) => {
    const body = JSON.stringify(line).slice(0, -1);
    sum = addBytes(sum, encoder.encode(body));
    return `${body},"sum":"${hex(sum)}"}\n`;
  }).join("");
}

/**
 * Reads a trace file's bytes: {timeline, cut}. `cut` says that the last line is not whole and was left out. Throws a Contradiction, as
 * a sentence that begins with `name`, where a line is not as it was written or an event contradicts the ones before it.
 */
export function readTrace(name, bytes) {
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Contradiction(`${name}: expected JSON lines in UTF-8, found a wrong byte`);
  }
  const lines = text.split("\n");
  const rest = lines.pop();
  if (!lines.length) throw new Contradiction(`${name}: expected a trace, found ${rest ? "no whole line" : "an empty file"}`);
  const timeline = new Timeline();
  let sum = EMPTY;
  lines.forEach((line, index) => {
    try {
      if (index === 0) checkVersion(line);
      const body = line.slice(0, Math.max(0, line.length - TAIL));
      sum = addBytes(sum, new TextEncoder().encode(body));
      if (line !== `${body},"sum":"${hex(sum)}"}`) {
        throw new Contradiction(index ? "a line that is not as it was written (its sum differs)" : "another line, or one that was changed");
      }
      timeline.push(JSON.parse(`${body}}`));
    } catch (error) {
      throw new Contradiction(`${name}: expected a sound line ${index + 1}, found ${error.message.replace(/^(event|trace): /, "")}`);
    }
  });
  return { timeline, cut: rest !== "" };
}

function checkVersion(line) {
  let version;
  try {
    version = JSON.parse(line).bd3_trace;
  } catch {
    version = undefined;
  }
  if (version === undefined) throw new Contradiction('something else than a trace, whose first line has "bd3_trace"');
  if (version !== 1) throw new Contradiction(`a trace of version ${version} where this page reads version 1`);
}

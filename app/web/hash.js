// 64-bit FNV-1a, continued, as docs/events.md has it. Numbers here hold 53 bits, so a hash is a pair of 32-bit halves; the prime
// is 2^40 + 0x1b3, which makes a product two small ones.

const LOW_PRIME = 0x1b3;
const WORD = 0x100000000;

/** A hash as it stands: `high` and `low` halves. Never changed in place. */
export const EMPTY = Object.freeze({ high: 0xcbf29ce4, low: 0x84222325 });

/** The hash after these bytes. */
export function addBytes({ high, low }, bytes) {
  for (const byte of bytes) {
    const mixed = (low ^ byte) >>> 0;
    const product = mixed * LOW_PRIME;
    high = (high * LOW_PRIME + Math.floor(product / WORD) + (mixed << 8 >>> 0)) % WORD;
    low = product % WORD;
  }
  return { high, low };
}

/** The hash after a number below 2^53 as 8 bytes, the least first. `flag` sets bit 63. */
export function addNumber(hash, number, flag = 0) {
  const bytes = new Uint8Array(8);
  for (let index = 0, rest = number; index < 8; index += 1, rest = Math.floor(rest / 256)) bytes[index] = rest % 256;
  bytes[7] |= flag ? 0x80 : 0;
  return addBytes(hash, bytes);
}

/** 16 hex digits. */
export function hex({ high, low }) {
  return high.toString(16).padStart(8, "0") + low.toString(16).padStart(8, "0");
}

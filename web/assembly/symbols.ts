// The arithmetic decoder. The value that remains is kept relative to `low`, so 64 bits hold it.

let next: usize = 0;
let end: usize = 0;
let range: u64 = 0;
let rest: u64 = 0; // value - low, below range unless the payload is damaged
let valid: bool = true;

function word(): u64 {
  let value: u64 = 0;
  for (let i = 0; i < 4; i++) {
    value <<= 8;
    if (next < end) value |= u64(load<u8>(next++));
  }
  return value;
}

/** Begin with a payload. */
export function start(payload: usize, length: usize): void {
  next = payload;
  end = payload + length;
  range = 0xffff_ffff_ffff_ffff;
  rest = word() << 32;
  rest |= word();
  valid = true;
}

/** Whether an encoder may have ended here: all bytes read, and a value as small as it writes. */
export function finished(): bool {
  return valid && next == end && rest < 0x1_ffff_ffff;
}

/** Whether the payload's value has been inside the range so far. */
export function inside(): bool {
  return valid;
}

// @ts-ignore: decorator
@inline
function advance(scale: u64, left: u64, right: u64): void {
  rest -= scale * left;
  range = scale * (right - left);
  if (range < 0x1_0000_0000) {
    range <<= 32;
    rest = (rest << 32) | word();
  }
}

/**
 * The next symbol of a table, given as `left` of its symbols and 2^24, uint32.
 *
 * A damaged payload gives symbol 0 for ever; `inside` says so.
 */
export function symbol(table: usize, symbols: i32): i32 {
  if (!valid) return 0;
  const scale = range >> 24;
  const place = rest / scale;
  if (place >= 0x100_0000) {
    valid = false;
    return 0;
  }
  const target = u32(place);
  let low = 0, high = symbols;
  while (high - low > 1) {
    const middle = (low + high) >>> 1;
    if (load<u32>(table + (usize(middle) << 2)) <= target) low = middle;
    else high = middle;
  }
  const at = table + (usize(low) << 2);
  advance(scale, load<u32>(at), load<u32>(at, 4));
  return low;
}

/** The next bit, 0 and 1 equally likely. */
export function evenBit(): i32 {
  if (!valid) return 0;
  const scale = range >> 24;
  const place = rest / scale;
  if (place >= 0x100_0000) {
    valid = false;
    return 0;
  }
  const bit = i32(place >= 0x80_0000);
  if (bit) advance(scale, 0x80_0000, 0x100_0000);
  else advance(scale, 0, 0x80_0000);
  return bit;
}

/**
 * Symbols of one step, in order of their tables.
 *
 * `numbers` (uint8) names each symbol's table among 64 at `tables`, `symbols + 1` uint32 each.
 * `order` is room for 65 + count int32; symbols go to `to` (int32) in the order of `numbers`.
 */
export function symbolsOfStep(
  numbers: usize, count: usize, tables: usize, symbols: i32, order: usize, to: usize,
): void {
  const firsts = order + count * 4;
  memory.fill(firsts, 0, 65 * 4);
  for (let i: usize = 0; i < count; i++) {
    const at = firsts + (usize(load<u8>(numbers + i)) << 2);
    store<u32>(at, load<u32>(at, 4) + 1, 4);
  }
  for (let number: usize = 0; number < 64; number++) {
    const at = firsts + (number << 2);
    store<u32>(at, load<u32>(at, 4) + load<u32>(at), 4);
  }
  for (let i: usize = 0; i < count; i++) {
    const at = firsts + (usize(load<u8>(numbers + i)) << 2);
    const place = load<u32>(at);
    store<u32>(at, place + 1);
    store<u32>(order + (place << 2), u32(i));
  }
  const size = usize(symbols + 1) * 4;
  for (let i: usize = 0; i < count; i++) {
    const place = usize(load<u32>(order + (i << 2)));
    const table = tables + usize(load<u8>(numbers + place)) * size;
    store<i32>(to + (place << 2), symbol(table, symbols));
  }
}

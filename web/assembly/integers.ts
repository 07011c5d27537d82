// Layers that are exact: products of int16, sums of int32 that the caller has proved to fit, and
// 64 bits for whatever is added to them.

/**
 * Sums of products of a convolution: int16 inputs and weights, int32 sums, no bias.
 *
 * Arguments are as for `convolve`; `weights` holds, for every 8 outputs, for every tap, for every
 * two inputs, 8 pairs of int16. `to` has `outputs` int32 a pixel.
 */
export function multiply(
  from: usize, fromStride: usize, to: usize, pixels: usize,
  weights: usize, offsets: usize, taps: usize, inputs: usize, outputs: usize,
): void {
  const toStride = outputs * 4;
  for (let block: usize = 0; block < pixels; block += 64) {
    const end = min(block + 64, pixels);
    let w0 = weights;
    for (let output: usize = 0; output < outputs; output += 8) {
      let w = w0;
      for (let pixel = block; pixel < end; pixel += 4) {
        let s00 = i32x4.splat(0), s01 = s00, s10 = s00, s11 = s00;
        let s20 = s00, s21 = s00, s30 = s00, s31 = s00;
        const base = from + pixel * fromStride;
        w = w0;
        for (let tap: usize = 0; tap < taps; tap++) {
          let p0 = base + load<i32>(offsets + tap * 4);
          let p1 = p0 + fromStride;
          let p2 = p1 + fromStride;
          let p3 = p2 + fromStride;
          const stop = p0 + inputs * 2;
          while (p0 < stop) {
            let a0 = v128.load(w), a1 = v128.load(w, 16);
            let x = v128.load32_splat(p0);
            s00 = i32x4.add(s00, i32x4.dot_i16x8_s(x, a0));
            s01 = i32x4.add(s01, i32x4.dot_i16x8_s(x, a1));
            x = v128.load32_splat(p1);
            s10 = i32x4.add(s10, i32x4.dot_i16x8_s(x, a0));
            s11 = i32x4.add(s11, i32x4.dot_i16x8_s(x, a1));
            x = v128.load32_splat(p2);
            s20 = i32x4.add(s20, i32x4.dot_i16x8_s(x, a0));
            s21 = i32x4.add(s21, i32x4.dot_i16x8_s(x, a1));
            x = v128.load32_splat(p3);
            s30 = i32x4.add(s30, i32x4.dot_i16x8_s(x, a0));
            s31 = i32x4.add(s31, i32x4.dot_i16x8_s(x, a1));
            a0 = v128.load(w, 32); a1 = v128.load(w, 48);
            x = v128.load32_splat(p0, 4);
            s00 = i32x4.add(s00, i32x4.dot_i16x8_s(x, a0));
            s01 = i32x4.add(s01, i32x4.dot_i16x8_s(x, a1));
            x = v128.load32_splat(p1, 4);
            s10 = i32x4.add(s10, i32x4.dot_i16x8_s(x, a0));
            s11 = i32x4.add(s11, i32x4.dot_i16x8_s(x, a1));
            x = v128.load32_splat(p2, 4);
            s20 = i32x4.add(s20, i32x4.dot_i16x8_s(x, a0));
            s21 = i32x4.add(s21, i32x4.dot_i16x8_s(x, a1));
            x = v128.load32_splat(p3, 4);
            s30 = i32x4.add(s30, i32x4.dot_i16x8_s(x, a0));
            s31 = i32x4.add(s31, i32x4.dot_i16x8_s(x, a1));
            w += 64; p0 += 8; p1 += 8; p2 += 8; p3 += 8;
          }
        }
        let out = to + pixel * toStride + output * 4;
        v128.store(out, s00); v128.store(out, s01, 16);
        out += toStride;
        v128.store(out, s10); v128.store(out, s11, 16);
        out += toStride;
        v128.store(out, s20); v128.store(out, s21, 16);
        out += toStride;
        v128.store(out, s30); v128.store(out, s31, 16);
      }
      w0 += taps * inputs * 16;
    }
  }
}

/** Inputs in two parts, x = 128 high + low with low in 0..127: `count` int16, a multiple of 8. */
export function splitInputs(from: usize, high: usize, low: usize, count: usize): void {
  const mask = i16x8.splat(127);
  for (let end = from + count * 2; from < end; from += 16, high += 16, low += 16) {
    const x = v128.load(from);
    v128.store(high, i16x8.shr_s(x, 7));
    v128.store(low, v128.and(x, mask));
  }
}

/**
 * Sums and biases to int64: to (+)= 128 high + low + bias, where `high` is 0 for sums in one part.
 * `outputs` int32 a pixel in, as many int64 out.
 */
export function total(
  high: usize, low: usize, bias: usize, to: usize, pixels: usize, outputs: usize, onto: bool,
): void {
  for (let pixel: usize = 0; pixel < pixels; pixel++) {
    for (let output: usize = 0; output < outputs; output++) {
      let sum = i64(load<i32>(low)) + load<i64>(bias + output * 8);
      if (high) {
        sum += i64(load<i32>(high)) << 7;
        high += 4;
      }
      if (onto) sum += load<i64>(to);
      store<i64>(to, sum);
      low += 4;
      to += 8;
    }
  }
}

/** act: min(max((x + 2048) >> 12, 0), 32767), int64 to int16. */
export function activate(from: usize, to: usize, count: usize): void {
  for (let end = from + count * 8; from < end; from += 8, to += 2) {
    store<i16>(to, i16(min<i64>(max<i64>((load<i64>(from) + 2048) >> 12, 0), 32767)));
  }
}

/**
 * Numbers of tables, uint8, channel by channel, from the last layer's outputs.
 *
 * `cells` are places (int32) of the step's cells among `outputs`, rows of `stride` int64;
 * `offsets` has 24576 (64 s + q) + 20 * 2^20 + 2^19 of each as int64.
 */
export function chooseTables(
  outputs: usize, stride: usize, cells: usize, offsets: usize, count: usize, channels: usize,
  to: usize,
): void {
  for (let channel: usize = 0; channel < channels; channel++) {
    for (let cell: usize = 0; cell < count; cell++) {
      const u = load<i64>(outputs + (usize(load<i32>(cells + cell * 4)) * stride + channel) * 8);
      const table = (4 * u + load<i64>(offsets + cell * 8)) >> 20;
      store<u8>(to++, u8(min<i64>(max<i64>(table, 0), 63)));
    }
  }
}

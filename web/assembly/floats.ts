// Floating-point layers. A tensor is a flat run of pixels, each a run of channels (float32); rows of
// pixels are separated by pixels of zeros, so that a 3x3 convolution is nine offsets into one run.

// @ts-ignore: decorator
@inline
function multiplyAdd(a: v128, b: v128, sum: v128): v128 {
  return f32x4.add(sum, f32x4.mul(a, b));
}

// @ts-ignore: decorator
@inline
function finish(sum: v128, to: usize, added: usize, slope: v128, activate: bool): void {
  if (added) sum = f32x4.add(sum, v128.load(added));
  if (activate) sum = f32x4.max(sum, f32x4.mul(sum, slope));
  v128.store(to, sum);
}

// Pixels that share a pass over the weights: these and their inputs stay in the first cache.
const BLOCK_PIXELS: usize = 48;

/**
 * A convolution with bias, then an addition (`added` != 0), then max(x, slope x) (`activate`).
 *
 * Strides are in bytes from pixel to pixel. `pixels` is rounded up to a multiple of 4, `inputs` is
 * a multiple of 4, `outputs` of 8. `weights` holds, for every 8 outputs, for every tap, for every
 * input, 8 floats; `offsets` an int32 in bytes for each tap. `to` and `added` may be the same.
 */
export function convolve(
  from: usize, fromStride: usize, to: usize, toStride: usize, pixels: usize,
  weights: usize, bias: usize, offsets: usize, taps: usize, inputs: usize, outputs: usize,
  added: usize, addedStride: usize, activate: bool, slopeValue: f32,
): void {
  const slope = f32x4.splat(slopeValue);
  const addedStep = added ? addedStride : 0;
  for (let block: usize = 0; block < pixels; block += BLOCK_PIXELS) {
    const end = min(block + BLOCK_PIXELS, pixels);
    let w0 = weights;
    for (let output: usize = 0; output < outputs; output += 8) {
      const at = output * 4;
      const bias0 = v128.load(bias + at);
      const bias1 = v128.load(bias + at, 16);
      let w = w0;
      for (let pixel: usize = block; pixel < end; pixel += 4) {
        let s00 = bias0, s01 = bias1, s10 = bias0, s11 = bias1;
        let s20 = bias0, s21 = bias1, s30 = bias0, s31 = bias1;
        const base = from + pixel * fromStride;
        w = w0;
        for (let tap: usize = 0; tap < taps; tap++) {
          let p0 = base + load<i32>(offsets + tap * 4);
          let p1 = p0 + fromStride;
          let p2 = p1 + fromStride;
          let p3 = p2 + fromStride;
          const stop = p0 + inputs * 4;
          while (p0 < stop) {
            let a0 = v128.load(w), a1 = v128.load(w, 16);
            let x = v128.load32_splat(p0);
            s00 = multiplyAdd(x, a0, s00); s01 = multiplyAdd(x, a1, s01);
            x = v128.load32_splat(p1);
            s10 = multiplyAdd(x, a0, s10); s11 = multiplyAdd(x, a1, s11);
            x = v128.load32_splat(p2);
            s20 = multiplyAdd(x, a0, s20); s21 = multiplyAdd(x, a1, s21);
            x = v128.load32_splat(p3);
            s30 = multiplyAdd(x, a0, s30); s31 = multiplyAdd(x, a1, s31);
            a0 = v128.load(w, 32); a1 = v128.load(w, 48);
            x = v128.load32_splat(p0, 4);
            s00 = multiplyAdd(x, a0, s00); s01 = multiplyAdd(x, a1, s01);
            x = v128.load32_splat(p1, 4);
            s10 = multiplyAdd(x, a0, s10); s11 = multiplyAdd(x, a1, s11);
            x = v128.load32_splat(p2, 4);
            s20 = multiplyAdd(x, a0, s20); s21 = multiplyAdd(x, a1, s21);
            x = v128.load32_splat(p3, 4);
            s30 = multiplyAdd(x, a0, s30); s31 = multiplyAdd(x, a1, s31);
            a0 = v128.load(w, 64); a1 = v128.load(w, 80);
            x = v128.load32_splat(p0, 8);
            s00 = multiplyAdd(x, a0, s00); s01 = multiplyAdd(x, a1, s01);
            x = v128.load32_splat(p1, 8);
            s10 = multiplyAdd(x, a0, s10); s11 = multiplyAdd(x, a1, s11);
            x = v128.load32_splat(p2, 8);
            s20 = multiplyAdd(x, a0, s20); s21 = multiplyAdd(x, a1, s21);
            x = v128.load32_splat(p3, 8);
            s30 = multiplyAdd(x, a0, s30); s31 = multiplyAdd(x, a1, s31);
            a0 = v128.load(w, 96); a1 = v128.load(w, 112);
            x = v128.load32_splat(p0, 12);
            s00 = multiplyAdd(x, a0, s00); s01 = multiplyAdd(x, a1, s01);
            x = v128.load32_splat(p1, 12);
            s10 = multiplyAdd(x, a0, s10); s11 = multiplyAdd(x, a1, s11);
            x = v128.load32_splat(p2, 12);
            s20 = multiplyAdd(x, a0, s20); s21 = multiplyAdd(x, a1, s21);
            x = v128.load32_splat(p3, 12);
            s30 = multiplyAdd(x, a0, s30); s31 = multiplyAdd(x, a1, s31);
            w += 128; p0 += 16; p1 += 16; p2 += 16; p3 += 16;
          }
        }
        let out = to + pixel * toStride + at;
        let add = added ? added + pixel * addedStep + at : 0;
        finish(s00, out, add, slope, activate);
        finish(s01, out + 16, add ? add + 16 : 0, slope, activate);
        out += toStride; add += addedStep;
        finish(s10, out, add, slope, activate);
        finish(s11, out + 16, add ? add + 16 : 0, slope, activate);
        out += toStride; add += addedStep;
        finish(s20, out, add, slope, activate);
        finish(s21, out + 16, add ? add + 16 : 0, slope, activate);
        out += toStride; add += addedStep;
        finish(s30, out, add, slope, activate);
        finish(s31, out + 16, add ? add + 16 : 0, slope, activate);
      }
      w0 += taps * inputs * 32;
    }
  }
}

/** dst = max(x, slope x) for `count` floats, a multiple of 4. */
export function leakyRelu(from: usize, to: usize, count: usize, slopeValue: f32): void {
  const slope = f32x4.splat(slopeValue);
  for (let end = from + count * 4; from < end; from += 16, to += 16) {
    const x = v128.load(from);
    v128.store(to, f32x4.max(x, f32x4.mul(x, slope)));
  }
}

/** to += from for `count` floats, a multiple of 4. */
export function add(from: usize, to: usize, count: usize): void {
  for (let end = from + count * 4; from < end; from += 16, to += 16) {
    v128.store(to, f32x4.add(v128.load(to), v128.load(from)));
  }
}

/**
 * Floats to RGBA bytes, round(min(max(x * scale + offset, 0), 255)), ties to even.
 *
 * A pixel of `from` holds block x block pixels of the picture, row by row, 3 channels each. `width`
 * and `height` are in pixels of `from`, `toStride` is that of a row of the picture, in bytes.
 */
export function toBytes(
  from: usize, fromStride: usize, fromRow: usize, width: usize, height: usize, block: usize,
  to: usize, toStride: usize, scale: f32, offset: f32,
): void {
  const scales = f32x4.splat(scale), offsets = f32x4.splat(offset);
  const low = f32x4.splat(0), high = f32x4.splat(255);
  for (let y: usize = 0; y < height; y++) {
    for (let i: usize = 0; i < block; i++) {
      let source = from + y * fromRow + i * block * 12;
      let target = to + (y * block + i) * toStride;
      for (let x: usize = 0; x < width; x++) {
        if (block == 4) {
          const a = rounded(v128.load(source), scales, offsets, low, high);
          const b = rounded(v128.load(source, 16), scales, offsets, low, high);
          const c = rounded(v128.load(source, 32), scales, offsets, low, high);
          const ab = i16x8.narrow_i32x4_s(a, b);
          const bytes = i8x16.narrow_i16x8_u(ab, i16x8.narrow_i32x4_s(c, i32x4.splat(255)));
          v128.store(
            target,
            v128.shuffle<u8>(bytes, bytes, 0, 1, 2, 12, 3, 4, 5, 12, 6, 7, 8, 12, 9, 10, 11, 12),
          );
        } else {
          for (let j: usize = 0; j < block; j++) {
            for (let channel: usize = 0; channel < 3; channel++) {
              const value = load<f32>(source + (j * 3 + channel) * 4) * scale + offset;
              store<u8>(target + j * 4 + channel, u8(nearest(min(max(value, 0.0), 255.0))));
            }
            store<u8>(target + j * 4, 255, 3);
          }
        }
        source += fromStride;
        target += block * 4;
      }
    }
  }
}

// @ts-ignore: decorator
@inline
function rounded(x: v128, scale: v128, offset: v128, low: v128, high: v128): v128 {
  const y = f32x4.add(f32x4.mul(x, scale), offset);
  return i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.min(f32x4.max(y, low), high)));
}

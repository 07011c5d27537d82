// Moves pixels, whatever their channels are.

/**
 * Depth to space: a pixel of `from` holds block x block pixels of `to`, row by row, `size` bytes
 * each. Strides and rows are in bytes.
 */
export function shuffle(
  from: usize, fromStride: usize, fromRow: usize, width: usize, height: usize,
  to: usize, toStride: usize, toRow: usize, block: usize, size: usize,
): void {
  for (let y: usize = 0; y < height; y++) {
    for (let x: usize = 0; x < width; x++) {
      let source = from + y * fromRow + x * fromStride;
      for (let i: usize = 0; i < block; i++) {
        let target = to + (y * block + i) * toRow + x * block * toStride;
        for (let j: usize = 0; j < block; j++) {
          memory.copy(target, source, size);
          source += size;
          target += toStride;
        }
      }
    }
  }
}

/** Channels of pixels into others: `size` bytes of each, `count` pixels. */
export function copyChannels(
  from: usize, fromStride: usize, to: usize, toStride: usize, size: usize, count: usize,
): void {
  for (let i: usize = 0; i < count; i++) {
    memory.copy(to, from, size);
    from += fromStride;
    to += toStride;
  }
}

/** Zeros: `size` bytes, `count` times, `step` apart. */
export function clear(at: usize, size: usize, step: usize, count: usize): void {
  for (let i: usize = 0; i < count; i++) {
    memory.fill(at, 0, size);
    at += step;
  }
}

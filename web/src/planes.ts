// How tensors lie in memory: pixels in a flat run, rows one pixel longer than the picture is wide.
// The pixel between two rows is zero and is the right border of one and the left border of the next.

/** Sizes of a plane with its border. */
export interface Plane {
  width: number;
  height: number;
  /** Pixels from row to row. */
  row: number;
  /** The first pixel of the picture. */
  first: number;
  /** Pixels from the first to the last of the picture, borders between them included. */
  run: number;
  /** All pixels: two rows of border, and what a loop over groups of 4 may touch behind them. */
  total: number;
}

const GROUP_PIXELS = 4;

export function plane(width: number, height: number): Plane {
  const row = width + 1;
  return {
    width,
    height,
    row,
    first: row + 1,
    run: (height - 1) * row + width,
    total: (height + 2) * row + 2 * GROUP_PIXELS,
  };
}

/** The neighbours of a pixel that a kernel of 1 or 9 taps looks at, in pixels of the run. */
export function tapOffsets(taps: number, row: number): number[] {
  if (taps === 1) return [0];
  const offsets = [];
  for (let dy = -1; dy <= 1; dy++) for (let dx = -1; dx <= 1; dx++) offsets.push(dy * row + dx);
  return offsets;
}

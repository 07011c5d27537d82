// Exact samples over a coded picture: text and graphics of a page with photographs in it.

import { BitstreamError, ModelError } from "./errors.ts";
import { Kind, isGrey, readSection } from "./container.ts";
import type { Header } from "./container.ts";
import { decodeStream } from "./whole.ts";
import type { DecodeWebp } from "./whole.ts";

/** Side of the layer's own tiles. */
const TILE_PX = 2048;

interface Box {
  left: number;
  top: number;
  width: number;
  height: number;
}

interface Pixels {
  width: number;
  height: number;
  data: Uint8ClampedArray;
}

/** The layer of a file; its streams are decoded where they are needed, one at a time. */
export class ExactLayer {
  readonly #tiles: { box: Box; stream: Uint8Array }[] = [];
  readonly #grey: boolean;
  readonly #decodeWebp: DecodeWebp | undefined;

  /** A file may have none: then nothing is put over anything. */
  constructor(data: Uint8Array, header: Header, decodeWebp?: DecodeWebp) {
    this.#grey = isGrey(header.mode);
    this.#decodeWebp = decodeWebp;
    const section = header.sections.find(({ kind }) => kind === Kind.EXACT);
    if (!section) return;
    if (!decodeWebp) throw new ModelError("expected a decoder of WebP for exact graphics, found none");
    const body = readSection(data, section);
    const view = new DataView(body.buffer, body.byteOffset, body.length);
    let position = 0;
    for (let top = 0; top < header.height && position <= body.length; top += TILE_PX) {
      for (let left = 0; left < header.width && position <= body.length; left += TILE_PX) {
        const start = position + 4;
        position = start + (start <= body.length ? view.getUint32(position, true) : 0);
        const width = Math.min(TILE_PX, header.width - left);
        const height = Math.min(TILE_PX, header.height - top);
        this.#tiles.push({ box: { left, top, width, height }, stream: body.subarray(start, position) });
      }
    }
    if (position !== body.length) {
      throw new BitstreamError(`damaged: expected ${position} bytes in EXACT, found ${body.length}`);
    }
  }

  /**
   * Puts the layer over the pixels of a region, RGBA; their transparency stays.
   *
   * With `reduce`, so many pixels a side are one; the region's corner is a multiple of it.
   */
  async putOver(pixels: Pixels, region: { left: number; top: number }, reduce = 1): Promise<void> {
    const right = region.left + pixels.width * reduce;
    const bottom = region.top + pixels.height * reduce;
    for (const { box, stream } of this.#tiles) {
      const misses =
        box.left >= right ||
        box.top >= bottom ||
        box.left + box.width <= region.left ||
        box.top + box.height <= region.top;
      if (!stream.length || misses) continue;
      const made = await decodeStream(stream, box.width, box.height, true, this.#decodeWebp!);
      this.#check(made);
      putTile(made, box, pixels, region, reduce);
    }
  }

  #check(data: Uint8ClampedArray): void {
    for (let i = 0; i < data.length; i += 4) {
      const alpha = data[i + 3]!;
      if (alpha === 0) continue;
      if (alpha !== 255) {
        throw new BitstreamError(`damaged: expected pixels shown or not in EXACT, found ${alpha}`);
      }
      if (this.#grey && (data[i] !== data[i + 1] || data[i] !== data[i + 2])) {
        throw new BitstreamError("damaged: expected a grey picture, found colours");
      }
    }
  }
}

/** A pixel that stands for many is the mean of those that would be shown in its square. */
function putTile(
  made: Uint8ClampedArray,
  box: Box,
  pixels: Pixels,
  region: { left: number; top: number },
  reduce: number,
): void {
  const firstX = Math.max(Math.floor((box.left - region.left) / reduce), 0);
  const firstY = Math.max(Math.floor((box.top - region.top) / reduce), 0);
  const endX = Math.min(Math.ceil((box.left + box.width - region.left) / reduce), pixels.width);
  const endY = Math.min(Math.ceil((box.top + box.height - region.top) / reduce), pixels.height);
  for (let y = firstY; y < endY; y++) {
    const top = region.top + y * reduce - box.top;
    const lines = Math.min(reduce, box.height - top);
    for (let x = firstX; x < endX; x++) {
      const left = region.left + x * reduce - box.left;
      const columns = Math.min(reduce, box.width - left);
      let shown = 0;
      let red = 0;
      let green = 0;
      let blue = 0;
      for (let line = top; line < top + lines; line++) {
        for (let column = left; column < left + columns; column++) {
          const from = (line * box.width + column) * 4;
          if (made[from + 3] === 0) continue;
          shown++;
          red += made[from]!;
          green += made[from + 1]!;
          blue += made[from + 2]!;
        }
      }
      if (shown === 0) continue;
      const to = (y * pixels.width + x) * 4;
      const count = lines * columns;
      const { data } = pixels;
      data[to] = (red + (count - shown) * data[to]!) / count;
      data[to + 1] = (green + (count - shown) * data[to + 1]!) / count;
      data[to + 2] = (blue + (count - shown) * data[to + 2]!) / count;
    }
  }
}

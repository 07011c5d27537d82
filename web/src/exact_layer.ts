// Exact samples over a coded picture: text and graphics of a page with photographs in it.

import { BitstreamError, ModelError } from "./errors.ts";
import { Kind, isGrey, readSection } from "./container.ts";
import type { Header } from "./container.ts";
import { checkGrey, decodeStream } from "./whole.ts";
import type { DecodeWebp } from "./whole.ts";

/** Side of the layer's own tiles. */
const TILE_PX = 2048;

export function hasExactLayer({ sections }: Header): boolean {
  return sections.some(({ kind }) => kind === Kind.EXACT);
}

/** Puts the layer over the pixels of a region, RGBA; their transparency stays. */
export async function putExact(
  data: Uint8Array,
  header: Header,
  pixels: { width: number; height: number; data: Uint8ClampedArray },
  region: { left: number; top: number },
  decodeWebp?: DecodeWebp,
): Promise<void> {
  if (!decodeWebp) throw new ModelError("expected a decoder of WebP for exact graphics, found none");
  const body = readSection(data, header.sections.find(({ kind }) => kind === Kind.EXACT)!);
  const view = new DataView(body.buffer, body.byteOffset, body.length);
  let position = 0;
  for (let top = 0; top < header.height; top += TILE_PX) {
    for (let left = 0; left < header.width; left += TILE_PX) {
      const size = position + 4 <= body.length ? view.getUint32(position, true) : Infinity;
      const start = position + 4;
      position = start + size;
      if (position > body.length) {
        throw new BitstreamError(`damaged: expected ${position} bytes in EXACT, found ${body.length}`);
      }
      const tile = {
        left,
        top,
        width: Math.min(TILE_PX, header.width - left),
        height: Math.min(TILE_PX, header.height - top),
      };
      if (size === 0 || !meets(tile, region, pixels)) continue;
      const stream = body.subarray(start, position);
      const made = await decodeStream(stream, tile.width, tile.height, true, decodeWebp);
      if (isGrey(header.mode)) checkGrey(made);
      putTile(made, tile, region, pixels);
    }
  }
  if (position !== body.length) {
    throw new BitstreamError(`damaged: expected ${position} bytes in EXACT, found ${body.length}`);
  }
}

interface Tile {
  left: number;
  top: number;
  width: number;
  height: number;
}

function meets(
  tile: Tile,
  region: { left: number; top: number },
  { width, height }: { width: number; height: number },
): boolean {
  return (
    tile.left < region.left + width &&
    tile.top < region.top + height &&
    tile.left + tile.width > region.left &&
    tile.top + tile.height > region.top
  );
}

function putTile(
  made: Uint8ClampedArray,
  tile: Tile,
  region: { left: number; top: number },
  pixels: { width: number; height: number; data: Uint8ClampedArray },
): void {
  const left = Math.max(tile.left, region.left);
  const right = Math.min(tile.left + tile.width, region.left + pixels.width);
  const bottom = Math.min(tile.top + tile.height, region.top + pixels.height);
  for (let y = Math.max(tile.top, region.top); y < bottom; y++) {
    let from = ((y - tile.top) * tile.width + left - tile.left) * 4;
    let to = ((y - region.top) * pixels.width + left - region.left) * 4;
    for (let x = left; x < right; x++, from += 4, to += 4) {
      const alpha = made[from + 3]!;
      if (alpha === 0) continue;
      if (alpha !== 255) {
        throw new BitstreamError(`damaged: expected pixels seen or not in EXACT, found ${alpha}`);
      }
      for (let channel = 0; channel < 3; channel++) {
        pixels.data[to + channel] = made[from + channel]!;
      }
    }
  }
}

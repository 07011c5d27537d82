// A picture as a PNG file, exactly, with its metadata.

import { crc32 } from "./container.ts";
import type { Pixels } from "./decoder.ts";
import { deflate, joined } from "./inflate.ts";
import type { Metadata } from "./side_sections.ts";

const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
const RGB = 2;
const RGBA = 6;
const FILTER_NONE = 0;
const FILTER_SUB = 1;
const MAX_BLOCK_BYTES = 65535;

/** `quick` leaves the samples as they are: for a browser that reads the file at once. */
export async function encodePng(
  { width, height, data }: Pixels,
  metadata: Metadata = {},
  quick = false,
): Promise<Uint8Array<ArrayBuffer>> {
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  const channels = isOpaque(data) ? 3 : 4;
  header.set([8, channels === 3 ? RGB : RGBA], 8);
  const chunks = [SIGNATURE, chunk("IHDR", header)];
  if (metadata.icc) {
    const profile = await deflate(metadata.icc);
    chunks.push(chunk("iCCP", joined([latin("icc\0\0"), profile])));
  }
  if (metadata.exif) chunks.push(chunk("eXIf", metadata.exif));
  if (metadata.xmp) {
    chunks.push(chunk("iTXt", joined([latin("XML:com.adobe.xmp\0\0\0\0\0"), metadata.xmp])));
  }
  const rows = filtered(data, width, height, channels, quick ? FILTER_NONE : FILTER_SUB);
  chunks.push(chunk("IDAT", quick ? stored(rows) : await deflate(rows)));
  chunks.push(chunk("IEND", new Uint8Array()));
  return joined(chunks) as Uint8Array<ArrayBuffer>;
}

function isOpaque(data: Uint8ClampedArray): boolean {
  for (let i = 3; i < data.length; i += 4) if (data[i] !== 255) return false;
  return true;
}

/** Each row: the filter's number and its samples, each less its left neighbour with FILTER_SUB. */
function filtered(
  data: Uint8ClampedArray,
  width: number,
  height: number,
  channels: number,
  filter: number,
): Uint8Array {
  const rows = new Uint8Array(height * (1 + width * channels));
  let to = 0;
  for (let y = 0, from = 0; y < height; y++) {
    rows[to++] = filter;
    for (let x = 0; x < width; x++, from += 4) {
      for (let channel = 0; channel < channels; channel++) {
        rows[to++] = data[from + channel]! - (filter && x ? data[from + channel - 4]! : 0);
      }
    }
  }
  return rows;
}

/** A zlib stream that holds its bytes as they are. */
function stored(data: Uint8Array): Uint8Array {
  const blocks = Math.max(1, Math.ceil(data.length / MAX_BLOCK_BYTES));
  const result = new Uint8Array(6 + 5 * blocks + data.length);
  const view = new DataView(result.buffer);
  view.setUint16(0, 0x7801);
  let at = 2;
  let low = 1;
  let high = 0;
  for (let block = 0; block < blocks; block++) {
    const body = data.subarray(block * MAX_BLOCK_BYTES, (block + 1) * MAX_BLOCK_BYTES);
    result[at] = block === blocks - 1 ? 1 : 0;
    view.setUint16(at + 1, body.length, true);
    view.setUint16(at + 3, ~body.length, true);
    result.set(body, at + 5);
    at += 5 + body.length;
    // Sums of Adler-32 stay far below 2^53 for a block.
    for (let i = 0; i < body.length; i++) high += low += body[i]!;
    low %= 65521;
    high %= 65521;
  }
  view.setUint32(at, high * 65536 + low);
  return result;
}

function chunk(kind: string, body: Uint8Array): Uint8Array {
  const result = new Uint8Array(12 + body.length);
  const view = new DataView(result.buffer);
  view.setUint32(0, body.length);
  result.set(latin(kind), 4);
  result.set(body, 8);
  view.setUint32(8 + body.length, crc32(result.subarray(4, 8 + body.length)));
  return result;
}

function latin(text: string): Uint8Array {
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
}

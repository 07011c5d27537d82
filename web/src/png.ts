// A picture as a PNG file, exactly, with its metadata.

import { crc32 } from "./container.ts";
import type { Pixels } from "./decoder.ts";
import { deflate, joined } from "./inflate.ts";
import type { Metadata } from "./side_sections.ts";

const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
const RGB = 2;
const RGBA = 6;
const FILTER_SUB = 1;

export async function encodePng(
  { width, height, data }: Pixels,
  metadata: Metadata = {},
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
  chunks.push(chunk("IDAT", await deflate(filtered(data, width, height, channels))));
  chunks.push(chunk("IEND", new Uint8Array()));
  return joined(chunks) as Uint8Array<ArrayBuffer>;
}

function isOpaque(data: Uint8ClampedArray): boolean {
  for (let i = 3; i < data.length; i += 4) if (data[i] !== 255) return false;
  return true;
}

/** Each row: the filter's number, and each sample less its left neighbour. */
function filtered(
  data: Uint8ClampedArray,
  width: number,
  height: number,
  channels: number,
): Uint8Array {
  const rows = new Uint8Array(height * (1 + width * channels));
  let to = 0;
  for (let y = 0, from = 0; y < height; y++) {
    rows[to++] = FILTER_SUB;
    for (let x = 0; x < width; x++, from += 4) {
      for (let channel = 0; channel < channels; channel++) {
        rows[to++] = data[from + channel]! - (x ? data[from + channel - 4]! : 0);
      }
    }
  }
  return rows;
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

// Pictures kept whole: WebP lossless streams, decoded by what the browser has.

import { BitstreamError } from "./errors.ts";
import { hasAlpha, readSection, tileRectangle } from "./container.ts";
import type { Header } from "./container.ts";

export const MAX_WHOLE_PIXELS = 2 ** 22;
export const MAX_WHOLE_SIDE = 16383;

/** RGBA, not premultiplied, of a .webp file. */
export type DecodeWebp = (file: Uint8Array, alpha: boolean) => Promise<Uint8ClampedArray>;

/** Pixels of one tile, RGBA. */
export async function decodeWholeTile(
  data: Uint8Array,
  header: Header,
  index: number,
  alphaApart: boolean,
  decodeWebp: DecodeWebp,
): Promise<Uint8ClampedArray> {
  const { width, height } = tileRectangle(header, index);
  const stream = readSection(data, header.tiles[index]!);
  const mayHaveAlpha = !alphaApart && hasAlpha(header.mode);
  return decodeStream(stream, width, height, mayHaveAlpha, decodeWebp);
}

/** Pixels of a WebP lossless stream, RGBA, after all that it claims was checked. */
export async function decodeStream(
  stream: Uint8Array,
  width: number,
  height: number,
  mayHaveAlpha: boolean,
  decodeWebp: DecodeWebp,
): Promise<Uint8ClampedArray> {
  const alpha = checkStream(stream, width, height);
  if (alpha && !mayHaveAlpha) {
    throw new BitstreamError("damaged: expected a stream without alpha, found one with it");
  }
  let pixels: Uint8ClampedArray;
  try {
    pixels = await decodeWebp(webpFile(stream), alpha);
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    throw new BitstreamError(`damaged: expected a WebP lossless stream, found: ${text}`);
  }
  if (pixels.length !== width * height * 4) {
    throw new BitstreamError(`damaged: expected ${width} x ${height} pixels, found others`);
  }
  return pixels;
}

/** Refuses colours in a grey picture. */
export function checkGrey(data: Uint8ClampedArray): void {
  for (let i = 0; i < data.length; i += 4) {
    if (data[i] !== data[i + 1] || data[i] !== data[i + 2]) {
      throw new BitstreamError("damaged: expected a grey picture, found colours");
    }
  }
}

/** Whether the stream has alpha; its size is that of the tile. */
function checkStream(stream: Uint8Array, width: number, height: number): boolean {
  if (stream.length < 5 || stream[0] !== 0x2f) {
    throw new BitstreamError("damaged: expected a WebP lossless stream, found another");
  }
  const bits = new DataView(stream.buffer, stream.byteOffset + 1, 4).getUint32(0, true);
  const found = [(bits & 0x3fff) + 1, ((bits >>> 14) & 0x3fff) + 1] as const;
  if (found[0] !== width || found[1] !== height || bits >>> 29 !== 0) {
    throw new BitstreamError(
      `damaged: expected a stream of ${width} x ${height} and version 0, ` +
        `found ${found[0]} x ${found[1]} and version ${bits >>> 29}`,
    );
  }
  return ((bits >>> 28) & 1) === 1;
}

function webpFile(stream: Uint8Array): Uint8Array {
  const { length } = stream;
  const file = new Uint8Array(20 + length + (length % 2));
  const view = new DataView(file.buffer);
  const text = (at: number, word: string): void =>
    file.set(Array.from(word, (letter) => letter.charCodeAt(0)), at);
  text(0, "RIFF");
  view.setUint32(4, length + (length % 2) + 12, true);
  text(8, "WEBPVP8L");
  view.setUint32(16, length, true);
  file.set(stream, 20);
  return file;
}

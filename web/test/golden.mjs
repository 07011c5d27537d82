// The golden files of the flagship family, beside this folder.

import { readFile, readdir } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { inflateSync } from "node:zlib";

export const folder = fileURLToPath(new URL("../../tests/data/golden/", import.meta.url));
export const modelFile = "flagship.cwicmodel";

export async function readGolden(name) {
  return new Uint8Array(await readFile(folder + name));
}

/** Names without suffix. */
export async function goldenNames() {
  const names = (await readdir(folder)).filter((name) => /^flagship-.*\.cwic$/.test(name));
  return names.map((name) => name.slice(0, -5)).sort();
}

/** A PNG file of 8 bits without interlace, as RGBA. */
export function decodePng(file) {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const parts = [];
  let width, height, channels;
  for (let at = 8; at < file.length; ) {
    const length = view.getUint32(at);
    const kind = String.fromCharCode(...file.subarray(at + 4, at + 8));
    const body = file.subarray(at + 8, at + 8 + length);
    if (kind === "IHDR") {
      [width, height] = [view.getUint32(at + 8), view.getUint32(at + 12)];
      channels = { 0: 1, 2: 3, 4: 2, 6: 4 }[body[9]];
      if (body[8] !== 8 || !channels || body[12]) throw new Error("expected a plain PNG file");
    }
    if (kind === "IDAT") parts.push(body);
    at += 12 + length;
  }
  const raw = inflateSync(Buffer.concat(parts));
  const stride = width * channels;
  const rows = new Uint8Array(stride * height);
  for (let y = 0; y < height; y++) {
    const filter = raw[y * (stride + 1)];
    for (let x = 0; x < stride; x++) {
      const left = x >= channels ? rows[y * stride + x - channels] : 0;
      const up = y ? rows[(y - 1) * stride + x] : 0;
      const corner = y && x >= channels ? rows[(y - 1) * stride + x - channels] : 0;
      const guess = [0, left, up, (left + up) >> 1, paeth(left, up, corner)][filter];
      rows[y * stride + x] = raw[y * (stride + 1) + 1 + x] + guess;
    }
  }
  const data = new Uint8ClampedArray(width * height * 4);
  for (let i = 0; i < width * height; i++) {
    const samples = rows.subarray(i * channels, (i + 1) * channels);
    const colours = channels < 3 ? [samples[0], samples[0], samples[0]] : samples.subarray(0, 3);
    data.set(colours, 4 * i);
    data[4 * i + 3] = channels % 2 ? 255 : samples[channels - 1];
  }
  return { width, height, data };
}

function paeth(a, b, c) {
  const [pa, pb, pc] = [a, b, c].map((side) => Math.abs(a + b - c - side));
  return pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
}

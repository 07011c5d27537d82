import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import * as cwic from "../build/cwic-node.js";
import { goldenNames, modelFile, readGolden } from "./golden.mjs";

const FILES = Number(process.env.DAMAGED_FILES ?? 1000);
const LIMITS = { maxPixels: 160 ** 2, maxSections: 64, maxMetadataBytes: 65536 };

// Exact graphics need a decoder of WebP: browser.test.mjs damages them.
const names = (await goldenNames()).filter((name) => !name.endsWith("exact"));
const golden = await Promise.all(names.map((name) => readGolden(`${name}.cwic`)));
const model = new cwic.Model(
  await cwic.Kernels.load(cwic.KERNELS_WASM),
  await cwic.readModelFile(await readGolden(modelFile)),
);

test(`${FILES} damaged files end in an error of ours, or checksums fit and a picture comes`, async () => {
  const random = generator(1);
  let refused = 0;
  for (let i = 0; i < FILES; i++) {
    const original = golden[i % golden.length];
    const { data, fits } = damaged(original, random);
    if (process.env.DAMAGED_FOLDER) {
      await writeFile(join(process.env.DAMAGED_FOLDER, `${i}.cwic`), data);
    }
    try {
      const header = cwic.readCheckedHeader(data, LIMITS);
      await cwic.readMetadata(data, header, LIMITS);
      const { width, height } = await cwic.decodePixels(data, model, { limits: LIMITS });
      assert.deepEqual([width, height], [header.width, header.height]);
      assert.ok(fits || Buffer.compare(data, original) === 0, `file ${i} is damaged and was decoded`);
    } catch (error) {
      assert.ok(error instanceof cwic.CodecError, `file ${i}: ${error.stack}`);
      refused++;
    }
  }
  assert.ok(refused > FILES / 2, `${refused} refused`);
});

test("a file cut anywhere is refused", async () => {
  const data = golden[names.indexOf("flagship-alpha")];
  for (let length = 0; length < data.length; length++) {
    assert.throws(() => cwic.readHeader(data.subarray(0, length)), cwic.BitstreamError);
  }
});

test("a payload with a byte more is refused", async () => {
  const data = golden[names.indexOf("flagship-low")];
  for (const byte of [0, 1, 255]) {
    const longer = withPayload(data, (payload) => Uint8Array.of(...payload, byte, byte, byte, byte, byte));
    await assert.rejects(cwic.decodePixels(longer, model), cwic.BitstreamError);
  }
});

test("a picture of more pixels than the limit is refused before anything is made", () => {
  const header = Uint8Array.of(
    0xc7, 0x77, 0x69, 0x63, 0x0d, 0x0a, 1, 1, 2, 3, 4, 5, 6, 7, 8,
    0xff, 0xff, 0xff, 0xff, 7, 0xff, 0xff, 0xff, 0xff, 7, 0, 0, 0,
  );
  assert.throws(() => cwic.readHeader(header), /expected at most 178956970 pixels/);
});

test("a tile of more pixels than the family has is refused", () => {
  const data = rewritten(golden[names.indexOf("flagship-low")], { width: 2049, height: 2049 });
  assert.throws(() => cwic.readCheckedHeader(data), /expected tiles of at most 4194304 pixels/);
});

test("numbers that are not in their shortest form are refused", () => {
  const data = golden[names.indexOf("flagship-low")];
  const longer = Uint8Array.of(...data.subarray(0, 16), 0x80 | data[16], 0, ...data.subarray(17));
  assert.throws(() => cwic.readHeader(longer), cwic.BitstreamError);
});

/** A file with some bytes changed, dropped or added; mostly with checksums that fit. */
function damaged(data, random) {
  const kind = random(10);
  if (kind === 0) return { data: data.slice(0, random(data.length)), fits: false };
  if (kind === 1) return { data: changed(data, random, 1 + random(4)), fits: false };
  const shorter = (body) => body.slice(0, random(body.length + 1));
  const other = (body) => changed(body, random, 1 + random(3));
  const header = { width: 1 + random(160), height: 1 + random(160), q: random(8192) - 4096 };
  return {
    data: kind === 9 ? rewritten(data, header) : withPayload(data, kind === 8 ? shorter : other, random),
    fits: true,
  };
}

function changed(data, random, count) {
  const copy = data.slice();
  for (let i = 0; i < count && copy.length; i++) copy[random(copy.length)] = random(256);
  return copy;
}

/** The same file with another body of one section, and checksums that fit. */
function withPayload(data, change, random = () => 0) {
  const header = cwic.readHeader(data);
  const chosen = random(header.sections.length);
  const bodies = header.sections.map(({ offset, length }, i) => {
    const body = data.subarray(offset, offset + length);
    return i === chosen ? change(body) : body;
  });
  return written(header, bodies);
}

function rewritten(data, changes) {
  const header = cwic.readHeader(data);
  const bodies = header.sections.map(({ offset, length }) => data.subarray(offset, offset + length));
  return written({ ...header, ...changes }, bodies);
}

function written(header, bodies) {
  const { identity, width, height, mode, tileSide, q, sections } = header;
  const out = [0xc7, 0x77, 0x69, 0x63, 0x0d, 0x0a, 1];
  for (let i = 0; i < 16; i += 2) out.push(parseInt(identity.slice(i, i + 2), 16));
  const varint = (value) => {
    for (; value > 127; value = Math.floor(value / 128)) out.push(128 | value % 128);
    out.push(value);
  };
  varint(width);
  varint(height);
  out.push(mode | ((tileSide ? Math.log2(tileSide) - 5 : 0) << 4));
  varint(q >= 0 ? 2 * q : -2 * q - 1);
  sections.forEach(({ kind }, i) => varint(bodies[i].length * 8 + kind));
  const crc = cwic.crc16(Uint8Array.from(out));
  out.push(crc >> 8, crc & 255);
  for (const body of bodies) {
    const sum = cwic.crc32(body);
    out.push(...body, sum & 255, (sum >> 8) & 255, (sum >> 16) & 255, sum >>> 24);
  }
  return Uint8Array.from(out);
}

/** Numbers below a bound, the same for a seed. */
function generator(seed) {
  let state = seed;
  return (bound) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * bound);
  };
}

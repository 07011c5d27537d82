import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import * as cwic from "../build/cwic-node.js";
import { decodePng, goldenNames, modelFile, readGolden } from "./golden.mjs";

const names = await goldenNames();
const model = new cwic.Model(
  await cwic.Kernels.load(cwic.KERNELS_WASM),
  await cwic.readModelFile(await readGolden(modelFile)),
);
const sha256 = (numbers) =>
  createHash("sha256").update(new Uint8Array(numbers.buffer)).digest("hex");

test("there are golden files", () => assert.ok(names.length >= 7));

for (const name of names) {
  test(`${name} decodes to its symbols`, async () => {
    const { symbols } = JSON.parse(new TextDecoder().decode(await readGolden(`${name}.json`)));
    const found = cwic.decodeIntegers(await readGolden(`${name}.cwic`), model).map(sha256);
    assert.deepEqual(found, symbols);
  });

  if (name.endsWith("exact")) {
    test(`${name} needs a decoder of WebP, which Node has not`, async () => {
      const data = await readGolden(`${name}.cwic`);
      await assert.rejects(cwic.decodePixels(data, model), /expected a decoder of WebP/);
    });
    continue;
  }

  test(`${name} decodes to its picture within 2`, async () => {
    const expected = decodePng(await readGolden(`${name}.png`));
    const found = await cwic.decodePixels(await readGolden(`${name}.cwic`), model);
    assert.deepEqual([found.width, found.height], [expected.width, expected.height]);
    assert.ok(difference(found.data, expected.data) <= 2);
  });
}

test("a region is that part of the picture", async () => {
  const data = await readGolden("flagship-tiles.cwic");
  const whole = await cwic.decodePixels(data, model);
  const region = { left: 37, top: 20, width: 70, height: 55 };
  const part = await cwic.decodePixels(data, model, { region });
  assert.deepEqual([part.width, part.height], [70, 55]);
  for (let y = 0; y < 55; y++) {
    const from = ((y + 20) * whole.width + 37) * 4;
    const row = part.data.subarray(y * 280, y * 280 + 280);
    assert.ok(difference(row, whole.data.subarray(from, from + 280)) <= 1);
  }
});

test("a region outside the picture is refused", async () => {
  const data = await readGolden("flagship-low.cwic");
  const region = { left: 100, top: 0, width: 31, height: 10 };
  await assert.rejects(cwic.decodePixels(data, model, { region }), /expected a region inside/);
});

test("bits of all cells are those of the payload", async () => {
  const data = await readGolden("flagship-high.cwic");
  const map = cwic.decodeMap(data, model);
  const { tiles } = cwic.readHeader(data);
  const bits = map.bits.reduce((sum, value) => sum + value, 0);
  // Hyper-latents and levels are no part of it.
  assert.ok(bits < 8 * tiles[0].length && bits > 4 * tiles[0].length, `${bits}`);
});

test("a model's numbers that the kernels are not exact for are refused", async () => {
  const file = await cwic.readModelFile(await readGolden(modelFile));
  const weight = file.arrays.get("scale.hyper_32.weight");
  const [outputs, inputs] = [weight.shape[0], 30000];
  file.arrays.set("scale.hyper_32.weight", {
    shape: [outputs, inputs, 1, 1],
    values: new Int16Array(outputs * inputs).fill(32767),
  });
  const kernels = await cwic.Kernels.load(cwic.KERNELS_WASM);
  assert.throws(() => new cwic.Model(kernels, file), /found/);
});

function difference(a, b) {
  assert.equal(a.length, b.length);
  let most = 0;
  for (let i = 0; i < a.length; i++) most = Math.max(most, Math.abs(a[i] - b[i]));
  return most;
}

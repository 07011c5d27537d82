// The doors, in a headless Chromium. Slow beside the other tests: seconds.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { after, before, describe, test } from "node:test";
import { constants, inflateRawSync } from "node:zlib";
import { Kind, crc16, crc32, readHeader } from "../build/cwic-node.js";
import { launch, missing } from "./chromium.mjs";
import { decodePng, folder, goldenNames, modelFile, readGolden } from "./golden.mjs";
import { serve } from "./site.mjs";

const dist = fileURLToPath(new URL("../dist/", import.meta.url));
const names = await goldenNames();
const whole = readdirSync(folder).filter((name) => /^whole-.*\.cwic$/.test(name)).map((name) => name.slice(0, -5));
// The model's identity stands in every file that it wrote.
const identity = readFileSync(folder + "flagship-low.cwic").subarray(7, 15).toString("hex");
const part = { file: modelFile, bytes: readFileSync(folder + modelFile).length, graphs: ["synthesis"] };
const bundled = readFileSync(new URL("../../src/cwic/models/cwic-psnr.cwicmodel", import.meta.url));
// What the manifest says first of all in a model file, which is long before its end.
const bundledIdentity = readManifest(bundled).identity;
const pages = {
  "index.html": `<!doctype html><title>test</title>
    <script type="module">import * as cwic from "./cwic.js"; window.cwic = cwic;</script>`,
  "plain.html": `<!doctype html><title>plain</title><img id="plain" src="flagship-low.cwic" alt="a picture">
    <script type="module">
      import { usePlainImages } from "./cwic.js"; window.ready = usePlainImages();</script>`,
  "models/index.json": JSON.stringify({
    format: "cwic-web-1",
    models: {
      [identity]: { name: "tiny", first: part },
      [bundledIdentity]: {
        name: "bundled",
        first: { file: "bundled.cwicmodel", bytes: bundled.length, graphs: ["preview", "synthesis"] },
      },
    },
  }),
  [`models/${modelFile}`]: readFileSync(folder + modelFile),
  "models/bundled.cwicmodel": bundled,
  "noise.cwic": noise(),
  "lettered.cwic": lettered(),
  "damaged.cwic": readFileSync(folder + "flagship-low.cwic").subarray(0, 300),
};

describe("in Chromium", { skip: missing }, () => {
  let browser, page, site;
  before(async () => {
    site = await serve([dist, folder], pages);
    browser = await launch();
    page = await browser.newPage();
    await page.goto(site.url);
    await page.waitForFunction(() => window.cwic);
  });
  after(async () => {
    await browser?.close();
    await site?.close();
  });

  for (const name of [...names, ...whole]) {
    const most = name.startsWith("whole") ? 0 : 2;
    test(`${name} is its picture within ${most}`, async () => {
      const expected = decodePng(await readGolden(`${name}.png`));
      const found = await page.evaluate(async (file) => {
        const data = await (await fetch(file)).arrayBuffer();
        const { width, height, data: pixels } = await window.cwic.decode(data);
        return { width, height, pixels: Array.from(pixels) };
      }, `${name}.cwic`);
      assert.deepEqual([found.width, found.height], [expected.width, expected.height]);
      assert.ok(difference(found.pixels, expected.data) <= most);
    });
  }

  test("several workers give the same pictures, and one that cannot start an error", async () => {
    const found = await page.evaluate(async (files) => {
      const cwic = await import("./cwic.js?several");
      cwic.configure({ workers: 3, models: "models/" });
      const all = await Promise.all(files.map(async (file) => {
        const data = await (await fetch(file)).arrayBuffer();
        const expected = await window.cwic.decode(data);
        const pixels = await cwic.decode(data);
        return pixels.data.every((sample, i) => sample === expected.data[i]);
      }));
      const broken = await import("./cwic.js?broken");
      broken.configure({ worker: "nothing.js" });
      const error = await broken.decode(new Uint8Array(8)).catch((caught) => caught.name);
      return { all, error };
    }, names.map((name) => `${name}.cwic`));
    assert.ok(found.all.length >= 7 && found.all.every(Boolean));
    assert.equal(found.error, "CodecError");
  });

  test("a PNG file is the picture with its transparency", async () => {
    const file = await page.evaluate(async () => {
      const data = await (await fetch("flagship-alpha.cwic")).arrayBuffer();
      const png = await window.cwic.decodeToPng(data);
      return Array.from(new Uint8Array(await png.arrayBuffer()));
    });
    const found = decodePng(Uint8Array.from(file));
    const expected = decodePng(await readGolden("flagship-alpha.png"));
    assert.ok(difference(found.data, expected.data) <= 2);
  });

  test("damaged files end in errors of ours", async () => {
    const found = await page.evaluate(async () => {
      const cwic = window.cwic;
      const data = new Uint8Array(await (await fetch("flagship-high.cwic")).arrayBuffer());
      const errors = [];
      for (let at = 0; at < data.length; at += 7) {
        const copy = data.slice();
        copy[at] ^= 1 << at % 8;
        const error = await cwic.decode(copy).catch((caught) => caught);
        errors.push(error instanceof cwic.BitstreamError || error instanceof cwic.ModelError);
      }
      return errors;
    });
    assert.ok(found.length > 80 && found.every(Boolean));
  });

  for (const name of ["whole-colour", "flagship-exact"]) {
    test(`damaged streams of ${name} end in errors of ours, or checksums fit and a picture comes`, async () => {
      const original = await readGolden(`${name}.cwic`);
      const { sections } = readHeader(original);
      const { offset, length } = sections.find(({ kind }) => [Kind.WHOLE, Kind.EXACT].includes(kind));
      const files = [];
      for (let at = 0; at < length; at += 11) {
        const copy = original.slice();
        copy[offset + at] ^= 1 << at % 8;
        new DataView(copy.buffer).setUint32(offset + length, crc32(copy.subarray(offset, offset + length)), true);
        files.push(Array.from(copy));
      }
      const found = await page.evaluate(async (files) => {
        const results = [];
        for (const file of files) {
          results.push(
            await window.cwic.decode(Uint8Array.from(file)).then(
              ({ width, height }) => `${width} x ${height}`,
              ({ name }) => name,
            ),
          );
        }
        return results;
      }, files);
      assert.ok(found.every((result) => ["BitstreamError", "130 x 90"].includes(result)), found.join());
      assert.ok(found.includes("BitstreamError"));
    });
  }

  test("the element shows a picture at the size that it is given", async () => {
    const found = await page.evaluate(async () => {
      const element = document.createElement("cwic-img");
      element.setAttribute("alt", "a picture");
      element.setAttribute("width", "65");
      element.src = "flagship-low.cwic";
      const loaded = new Promise((resolve, reject) => {
        element.addEventListener("load", resolve);
        element.addEventListener("error", reject);
      });
      document.body.append(element);
      await loaded;
      const { width, height } = element.getBoundingClientRect();
      const { naturalWidth, naturalHeight, complete } = element;
      const canvas = element.shadowRoot.querySelector("canvas");
      const label = element.getAttribute("aria-label");
      return { width, height, naturalWidth, naturalHeight, complete, label, drawn: canvas.width };
    });
    assert.deepEqual(found, {
      width: 65, height: 45, naturalWidth: 130, naturalHeight: 90, complete: true,
      label: "a picture", drawn: 130,
    });
  });

  test("an element whose file is damaged shows its text and says why", async () => {
    const found = await page.evaluate(async () => {
      const element = document.createElement("cwic-img");
      element.setAttribute("alt", "not to be seen");
      element.src = "damaged.cwic";
      const failed = new Promise((resolve) => element.addEventListener("error", resolve));
      document.body.append(element);
      const { message } = await failed;
      return { message, text: element.shadowRoot.lastChild.textContent };
    });
    assert.match(found.message, /^damaged: expected \d+ bytes, found 300$/);
    assert.equal(found.text, "not to be seen");
  });

  test("a preview shows exact letters as the mean of their squares", async () => {
    const expected = decodePng(await readGolden("flagship-exact.png"));
    const preview = await page.evaluate(async () => {
      const data = await (await fetch("lettered.cwic")).arrayBuffer();
      let found;
      const onPreview = ({ width, height, data }) => (found = { width, height, data: Array.from(data) });
      await window.cwic.decode(data, { onPreview });
      return found;
    });
    assert.deepEqual([preview.width, preview.height], [17, 12]);
    for (let y = 0; y < 4; y++) {
      for (let x = 0; x < 16; x++) {
        let sum = 0;
        for (let at = 0; at < 64; at++) {
          sum += expected.data[((8 * y + (at >> 3)) * expected.width + 8 * x + (at & 7)) * 4];
        }
        const found = preview.data[(y * 17 + x) * 4];
        assert.ok(Math.abs(found - sum / 64) <= 1, `${x}, ${y}: ${found} for ${sum / 64}`);
      }
    }
  });

  test("a preview is there before the rest is found to be damaged", async () => {
    const found = await page.evaluate(async () => {
      const data = await (await fetch("noise.cwic")).arrayBuffer();
      const previews = [];
      const onPreview = ({ width, height }) => previews.push([width, height]);
      const error = await window.cwic.decode(data, { onPreview }).catch(({ message }) => message);
      return { previews, error };
    });
    assert.deepEqual(found.previews, [[12, 9]]);
    assert.match(found.error, /^damaged: a payload/);
  });

  test("a plain image shows a .cwic file by the service worker", async () => {
    const other = await browser.newPage();
    await other.goto(`${site.url}plain.html`);
    await other.waitForFunction(() => window.ready);
    await other.evaluate(() => window.ready);
    await other.waitForFunction(() => document.getElementById("plain").naturalWidth === 130);
    await other.reload();
    await other.waitForFunction(() => document.getElementById("plain").naturalWidth === 130);
    await other.close();
  });

  test("a file of a model that is not there is refused by name", async () => {
    const message = await page.evaluate(async () => {
      const data = await (await fetch("cvpr2018-low.cwic")).arrayBuffer();
      return window.cwic.decode(data).catch((error) => `${error.name}: ${error.message}`);
    });
    assert.match(message, /^ModelError: the file was made by model [0-9a-f]{16}, which .* lacks$/);
  });

  test("the viewer shows picture, facts and map, and saves a PNG file", async () => {
    const viewer = await browser.newPage();
    await viewer.goto(`${site.url}viewer.html?src=flagship-region.cwic`);
    await viewer.waitForSelector("#save:enabled");
    assert.match(await viewer.textContent("#facts"), /130 x 90, RGB/);
    await viewer.click("#show-map");
    await viewer.waitForSelector("#map:not([hidden])");
    const download = viewer.waitForEvent("download");
    await viewer.click("#save");
    const file = await (await download).path();
    const found = decodePng(readFileSync(file));
    const expected = decodePng(await readGolden("flagship-region.png"));
    assert.ok(difference(found.data, expected.data) <= 2);
    await viewer.setInputFiles("#open", folder + "flagship-region.json");
    await viewer.waitForSelector("#message:not([hidden])");
    assert.equal(await viewer.textContent("#message"), "expected a .cwic file, found another");
    await viewer.close();
  });
});

/** The first entry of a model file. */
function readManifest(file) {
  const start = 30 + file.readUInt16LE(26) + file.readUInt16LE(28);
  return JSON.parse(inflateRawSync(file.subarray(start), { finishFlush: constants.Z_SYNC_FLUSH }));
}

/** A file of the bundled model that says nothing. */
function noise() {
  const payload = Uint8Array.from({ length: 4000 }, (_, i) => (Math.imul(i + 1, 2654435761) >>> 24) | 1);
  return pack({ width: 90, height: 70, q: 0 }, [[Kind.TILE, payload]]);
}

/** A file of the bundled model, with letters of another one over it. */
function lettered() {
  const body = (data, wanted) => {
    const { sections } = readHeader(data);
    const { offset, length } = sections.find(({ kind }) => kind === wanted);
    return data.subarray(offset, offset + length);
  };
  const coded = readFileSync(new URL(`../released/0.1.0-cwic-psnr-quality-20.cwic`, `file://${folder}`));
  const letters = readFileSync(folder + "flagship-exact.cwic");
  return pack(readHeader(coded), [
    [Kind.EXACT, body(letters, Kind.EXACT)],
    [Kind.TILE, body(coded, Kind.TILE)],
  ]);
}

/** A file of the bundled model: RGB in one tile. */
function pack({ width, height, q }, sections) {
  const varint = (number) =>
    number < 128 ? [number] : [(number & 127) | 128, ...varint(Math.floor(number / 128))];
  const head = [0xc7, 0x77, 0x69, 0x63, 0x0d, 0x0a, 1, ...Buffer.from(bundledIdentity, "hex")];
  head.push(...varint(width), ...varint(height), 0, ...varint(q < 0 ? -2 * q - 1 : 2 * q));
  for (const [kind, { length }] of sections) {
    head.push(...varint(length * 8 + Math.min(kind, 7)), ...(kind < 8 ? [] : varint(kind - 8)));
  }
  const crc = crc16(Uint8Array.from(head));
  const bodies = sections.map(([, body]) => {
    const sum = Buffer.alloc(4);
    sum.writeUInt32LE(crc32(body));
    return Buffer.concat([body, sum]);
  });
  return Buffer.concat([Buffer.from([...head, crc >> 8, crc & 255]), ...bodies]);
}

function difference(a, b) {
  assert.equal(a.length, b.length);
  let most = 0;
  for (let i = 0; i < a.length; i++) most = Math.max(most, Math.abs(a[i] - b[i]));
  return most;
}

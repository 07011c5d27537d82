// For tests of both decoders: node answers.mjs MODEL LIMITS, paths on standard input.
//
// Prints, for each file, SHA-256 of its tiles' integers, or null where it was refused by an error of
// this package. Where NAME.synthesis.rgba or NAME.fast.rgba lies beside NAME.cwic, that graph's
// picture must be that within 2.

import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { basename } from "node:path";
import * as cwic from "../build/cwic-node.js";

const [modelPath, limits] = process.argv.slice(2);
const model = new cwic.Model(
  await cwic.Kernels.load(cwic.KERNELS_WASM),
  await cwic.readModelFile(new Uint8Array(readFileSync(modelPath))),
);
const answers = {};
for (const path of readFileSync(0, "utf8").split("\n")) {
  const data = new Uint8Array(readFileSync(path));
  const wishes = { limits: { ...cwic.DEFAULT_LIMITS, ...JSON.parse(limits) } };
  try {
    await cwic.readMetadata(data, cwic.readCheckedHeader(data, wishes.limits), wishes.limits);
    await cwic.decodePixels(data, model, wishes);
    answers[basename(path)] = cwic.decodeIntegers(data, model).map((integers) =>
      createHash("sha256").update(new Uint8Array(integers.buffer)).digest("hex"),
    );
    for (const graph of ["synthesis", "fast"]) {
      const picture = path.replace(/\.cwic$/, `.${graph}.rgba`);
      if (!existsSync(picture)) continue;
      compare((await cwic.decodePixels(data, model, { ...wishes, graph })).data, picture);
    }
  } catch (error) {
    if (!(error instanceof cwic.CodecError)) throw error;
    answers[basename(path)] = null;
  }
}
process.stdout.write(JSON.stringify(answers));

function compare(found, path) {
  const expected = readFileSync(path);
  for (let i = 0; i < expected.length; i++) {
    if (Math.abs(expected[i] - found[i]) > 2) throw new Error(`${path}: sample ${i} differs`);
  }
}

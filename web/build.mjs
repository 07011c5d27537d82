// Builds everything from nothing: kernels to WebAssembly, then the programs of `dist/`.

import { mkdir } from "node:fs/promises";
import asc from "assemblyscript/asc";
import { build } from "esbuild";

await mkdir("build", { recursive: true });
const { error, stderr } = await asc.main([
  "assembly/index.ts", "--outFile", "build/kernels.wasm",
  "-O3", "--noAssert", "--runtime", "stub", "--enable", "simd",
]);
if (error) throw new Error(stderr.toString());

const options = {
  bundle: true,
  format: "esm",
  target: "es2022",
  loader: { ".wasm": "binary" },
  logLevel: "warning",
};
await build({
  ...options,
  entryPoints: { "cwic-node": "src/node.ts" },
  outdir: "build",
  platform: "node",
});

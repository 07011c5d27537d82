// Builds everything from nothing: kernels to WebAssembly, then the programs of `dist/`.

import { copyFile, mkdir, rm } from "node:fs/promises";
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
await rm("dist", { recursive: true, force: true });
await build({
  ...options,
  minify: true,
  entryPoints: {
    cwic: "src/index.ts",
    "cwic-worker": "src/worker.ts",
    viewer: "src/viewer.ts",
  },
  outdir: "dist",
});
// A service worker that is no module runs in every browser that has service workers.
await build({
  ...options,
  minify: true,
  format: "iife",
  entryPoints: { "cwic-service-worker": "src/service_worker.ts" },
  outdir: "dist",
});
await copyFile("src/viewer.html", "dist/viewer.html");
// For tests and benchmarks.
await build({
  ...options,
  entryPoints: { "cwic-node": "src/node.ts" },
  outdir: "build",
  platform: "node",
});

// The module that `build.mjs` compiles from `assembly/`, as bytes inside the program.
// @ts-ignore: made by the build
import code from "../build/kernels.wasm";

export const KERNELS_WASM = code as Uint8Array;

// What tests and benchmarks use outside a browser.
export * from "./container.ts";
export * from "./decoder.ts";
export * from "./errors.ts";
export { Kernels } from "./kernels.ts";
export { KERNELS_WASM } from "./kernels_wasm.ts";
export { readModelFile } from "./model_file.ts";
export { readMetadata } from "./side_sections.ts";

// What the decoder computes in WebAssembly. Addresses are in bytes of its one memory, which the
// caller hands out; pixels have strides, rows of pixels are separated by zeros.
export * from "./floats";
export * from "./integers";
export * from "./layout";
export * from "./symbols";

/** Where memory that nobody has taken begins. */
export function heapBase(): usize {
  return __heap_base;
}

// One instance of the WebAssembly module, and its memory: weights below, a picture's work above.

import { CodecError } from "./errors.ts";

interface Exports {
  memory: WebAssembly.Memory;
  heapBase(): number;
  convolve(
    from: number, fromStride: number, to: number, toStride: number, pixels: number,
    weights: number, bias: number, offsets: number, taps: number, inputs: number, outputs: number,
    added: number, addedStride: number, activate: boolean, slope: number,
  ): void;
  leakyRelu(from: number, to: number, count: number, slope: number): void;
  add(from: number, to: number, count: number): void;
  toBytes(
    from: number, fromStride: number, fromRow: number, width: number, height: number, block: number,
    to: number, toStride: number, scale: number, offset: number,
  ): void;
  multiply(
    from: number, fromStride: number, to: number, pixels: number,
    weights: number, offsets: number, taps: number, inputs: number, outputs: number,
  ): void;
  splitInputs(from: number, high: number, low: number, count: number): void;
  total(
    high: number, low: number, bias: number, to: number, pixels: number, outputs: number,
    onto: boolean,
  ): void;
  activate(from: number, to: number, count: number): void;
  chooseTables(
    outputs: number, stride: number, cells: number, offsets: number, count: number,
    channels: number, to: number,
  ): void;
  start(payload: number, length: number): void;
  finished(): number;
  inside(): number;
  symbol(table: number, symbols: number): number;
  evenBit(): number;
  symbolsOfStep(
    numbers: number, count: number, tables: number, symbols: number, order: number, to: number,
  ): void;
  shuffle(
    from: number, fromStride: number, fromRow: number, width: number, height: number,
    to: number, toStride: number, toRow: number, block: number, size: number,
  ): void;
  copyChannels(
    from: number, fromStride: number, to: number, toStride: number, size: number, count: number,
  ): void;
  clear(at: number, size: number, step: number, count: number): void;
}

const PAGE_BYTES = 65536;
const MAX_BYTES = 2 ** 32 - PAGE_BYTES;
const ALIGNMENT = 16;

export class Kernels {
  readonly run: Exports;
  #top: number;

  private constructor(run: Exports) {
    this.run = run;
    this.#top = run.heapBase();
  }

  static async load(code: Uint8Array): Promise<Kernels> {
    const { instance } = await WebAssembly.instantiate(code as Uint8Array<ArrayBuffer>, {});
    return new Kernels(instance.exports as unknown as Exports);
  }

  /** Room for so many bytes; what it holds is left from before. */
  take(bytes: number): number {
    const at = this.#top;
    // A little room behind: loops write groups of pixels, and reads run ahead.
    const top = at + Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
    if (top > MAX_BYTES) throw new CodecError(`not enough memory: ${bytes} bytes more`);
    const missing = top - this.run.memory.buffer.byteLength;
    if (missing > 0) {
      try {
        this.run.memory.grow(Math.ceil(missing / PAGE_BYTES));
      } catch {
        throw new CodecError(`not enough memory: ${missing} bytes more`);
      }
    }
    this.#top = top;
    return at;
  }

  /** Room that holds zeros. */
  takeZeros(bytes: number): number {
    const at = this.take(bytes);
    this.run.clear(at, bytes, 0, 1);
    return at;
  }

  /** Where the next room would be: `release` with it gives back all that was taken since. */
  get top(): number {
    return this.#top;
  }

  release(top: number): void {
    this.#top = top;
  }

  // Views end with the next `take`.
  bytes(at: number, count: number): Uint8Array {
    return new Uint8Array(this.run.memory.buffer, at, count);
  }

  shorts(at: number, count: number): Int16Array {
    return new Int16Array(this.run.memory.buffer, at, count);
  }

  integers(at: number, count: number): Int32Array {
    return new Int32Array(this.run.memory.buffer, at, count);
  }

  longs(at: number, count: number): BigInt64Array {
    return new BigInt64Array(this.run.memory.buffer, at, count);
  }

  floats(at: number, count: number): Float32Array {
    return new Float32Array(this.run.memory.buffer, at, count);
  }

  /** A copy of numbers in this memory. */
  store(values: Int16Array | Int32Array | Uint32Array | Float32Array | BigInt64Array): number {
    const at = this.take(values.byteLength);
    this.bytes(at, values.byteLength).set(
      new Uint8Array(values.buffer, values.byteOffset, values.byteLength),
    );
    return at;
  }
}

/** Rounded up. */
export function multipleOf(count: number, step: number): number {
  return Math.ceil(count / step) * step;
}

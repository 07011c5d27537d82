// A model file: a zip archive of a manifest, NumPy arrays and ONNX graphs.

import { ModelError } from "./errors.ts";
import { inflate } from "./inflate.ts";

export interface Manifest {
  name: string;
  family: string;
  /** 16 hexadecimal digits. */
  identity: string;
  decoding: Record<string, unknown>;
}

export type Numbers = Int8Array | Uint8Array | Int16Array | Int32Array | Float32Array | BigInt64Array;

/** An array, row-major. Half precision is held as single. */
export interface Tensor {
  shape: number[];
  values: Numbers;
}

export interface ModelFile {
  manifest: Manifest;
  arrays: Map<string, Tensor>;
  graphs: Map<string, Uint8Array>;
}

const MAX_BYTES = 256 * 1024 * 1024;
const END_BYTES = 22;

export async function readModelFile(data: Uint8Array): Promise<ModelFile> {
  let entries: Map<string, Uint8Array>;
  try {
    entries = await readArchive(data);
  } catch (error) {
    if (error instanceof ModelError) throw error;
    throw new ModelError(`expected a model file, found: ${(error as Error).message}`);
  }
  const manifest = readManifest(entries.get("manifest.json"));
  const arrays = new Map<string, Tensor>();
  const graphs = new Map<string, Uint8Array>();
  for (const [name, content] of entries) {
    if (name.endsWith(".npy")) arrays.set(name.slice(0, -4), readArray(content, name));
    if (name.endsWith(".onnx")) graphs.set(name.slice(0, -5), content);
  }
  return { manifest, arrays, graphs };
}

function readManifest(content: Uint8Array | undefined): Manifest {
  if (!content) throw new ModelError("expected an entry manifest.json, found none");
  let found: Manifest;
  try {
    found = JSON.parse(new TextDecoder().decode(content)) as Manifest;
  } catch (error) {
    throw new ModelError(`manifest.json: expected JSON, found: ${(error as Error).message}`);
  }
  const { name, family, identity, decoding } = found ?? {};
  if (
    typeof name !== "string" ||
    typeof family !== "string" ||
    !/^[0-9a-f]{16}$/.test(String(identity)) ||
    typeof decoding !== "object"
  ) {
    throw new ModelError("manifest.json: expected name, family, identity and decoding");
  }
  return found;
}

async function readArchive(data: Uint8Array): Promise<Map<string, Uint8Array>> {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  let end = data.length - END_BYTES;
  while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end--;
  if (end < 0) throw new ModelError("expected a model file, found no zip archive");
  const count = view.getUint16(end + 10, true);
  let at = view.getUint32(end + 16, true);
  let total = 0;
  const names: string[] = [];
  const contents: Promise<Uint8Array>[] = [];
  for (let i = 0; i < count; i++) {
    if (view.getUint32(at, true) !== 0x02014b50) throw new ModelError("damaged: no zip directory");
    const method = view.getUint16(at + 10, true);
    const packed = view.getUint32(at + 20, true);
    const size = view.getUint32(at + 24, true);
    const nameLength = view.getUint16(at + 28, true);
    const local = view.getUint32(at + 42, true);
    const name = new TextDecoder().decode(data.subarray(at + 46, at + 46 + nameLength));
    at += 46 + nameLength + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
    total += size;
    if (total > MAX_BYTES) {
      throw new ModelError(`expected at most ${MAX_BYTES} bytes unpacked, found more`);
    }
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    const body = data.subarray(start, start + packed);
    if (method !== 0 && method !== 8) throw new ModelError(`${name}: expected deflate`);
    names.push(name);
    contents.push(method === 0 ? Promise.resolve(body) : inflate(body, size, "deflate-raw"));
  }
  const unpacked = await Promise.all(contents);
  return new Map(names.map((name, i) => [name, unpacked[i]!]));
}

const DTYPES: Record<string, (bytes: ArrayBuffer) => Numbers> = {
  "|i1": (bytes) => new Int8Array(bytes),
  "|u1": (bytes) => new Uint8Array(bytes),
  "<i2": (bytes) => new Int16Array(bytes),
  "<i4": (bytes) => new Int32Array(bytes),
  "<i8": (bytes) => new BigInt64Array(bytes),
  "<f2": (bytes) => singles(new Uint16Array(bytes)),
  "<f4": (bytes) => new Float32Array(bytes),
};

function readArray(data: Uint8Array, name: string): Tensor {
  const length = (data[8] ?? 0) + 256 * (data[9] ?? 0);
  const text = String.fromCharCode(...data.subarray(0, 10 + length));
  const found =
    /^\x93NUMPY\x01\x00..\{'descr': '(...)', 'fortran_order': False, 'shape': \(([\d, ]*)\), \} *\n$/s.exec(
      text,
    );
  const make = found && DTYPES[found[1]!];
  if (!make) throw new ModelError(`${name}: expected an array of numbers, found another`);
  const shape = found[2]!.split(",").filter((side) => side.trim()).map(Number);
  // A copy: values begin at any offset of the archive.
  const body = data.slice(10 + length);
  const count = shape.reduce((product, side) => product * side, 1);
  const size = Number(found[1]![2]);
  if (body.length !== count * size) {
    throw new ModelError(`${name}: expected ${count} numbers, found ${body.length / size}`);
  }
  return { shape, values: make(body.buffer) };
}

let halfTable: Float32Array | undefined;

/** Half precision to single. */
export function singles(halves: Uint16Array): Float32Array {
  if (!halfTable) {
    halfTable = new Float32Array(65536);
    for (let bits = 0; bits < 65536; bits++) {
      const exponent = (bits >> 10) & 31;
      const fraction = bits & 1023;
      let value: number;
      if (exponent === 0) value = fraction * 2 ** -24;
      else if (exponent === 31) value = fraction ? NaN : Infinity;
      else value = (1 + fraction / 1024) * 2 ** (exponent - 15);
      halfTable[bits] = bits & 0x8000 ? -value : value;
    }
  }
  const result = new Float32Array(halves.length);
  for (let i = 0; i < halves.length; i++) result[i] = halfTable[halves[i]!]!;
  return result;
}

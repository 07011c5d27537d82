// Reads as much of an ONNX graph as a synthesis needs: nodes, their attributes, and weights.

import { ModelError } from "./errors.ts";
import { singles } from "./model_file.ts";
import type { Tensor } from "./model_file.ts";

export interface Node {
  operator: string;
  inputs: string[];
  outputs: string[];
  attributes: Map<string, Attribute>;
}

export interface Attribute {
  float: number;
  integer: number;
  text: string;
  integers: number[];
}

export interface Graph {
  nodes: Node[];
  weights: Map<string, Tensor>;
  inputs: string[];
  outputs: string[];
}

// Numbers of fields and of types, as in onnx.proto.
const MODEL_GRAPH = 7;
const GRAPH = { node: 1, weight: 5, input: 11, output: 12 };
const NODE = { input: 1, output: 2, operator: 4, attribute: 5 };
const ATTRIBUTE = { name: 1, float: 2, integer: 3, text: 4, integers: 8 };
const TENSOR = { dims: 1, type: 2, name: 8, raw: 9 };
const TYPE = { float: 1, integer: 7, half: 10 };

type Value = number | Uint8Array;

export function readGraph(data: Uint8Array): Graph {
  const graph: Graph = { nodes: [], weights: new Map(), inputs: [], outputs: [] };
  for (const [field, model] of fields(data)) {
    if (field !== MODEL_GRAPH) continue;
    for (const [part, value] of fields(message(model))) {
      if (part === GRAPH.node) graph.nodes.push(readNode(message(value)));
      if (part === GRAPH.input) graph.inputs.push(nameOf(message(value)));
      if (part === GRAPH.output) graph.outputs.push(nameOf(message(value)));
      if (part === GRAPH.weight) {
        const [name, tensor] = readTensor(message(value));
        graph.weights.set(name, tensor);
      }
    }
  }
  return graph;
}

function readNode(data: Uint8Array): Node {
  const node: Node = { operator: "", inputs: [], outputs: [], attributes: new Map() };
  for (const [field, value] of fields(data)) {
    if (field === NODE.input) node.inputs.push(text(value));
    if (field === NODE.output) node.outputs.push(text(value));
    if (field === NODE.operator) node.operator = text(value);
    if (field === NODE.attribute) {
      const found: Attribute = { float: 0, integer: 0, text: "", integers: [] };
      let name = "";
      for (const [kind, content] of fields(message(value))) {
        if (kind === ATTRIBUTE.name) name = text(content);
        if (kind === ATTRIBUTE.float) found.float = view(message(content)).getFloat32(0, true);
        if (kind === ATTRIBUTE.integer) found.integer = content as number;
        if (kind === ATTRIBUTE.text) found.text = text(content);
        if (kind === ATTRIBUTE.integers) found.integers.push(...integers(content));
      }
      node.attributes.set(name, found);
    }
  }
  return node;
}

function readTensor(data: Uint8Array): [string, Tensor] {
  let name = "";
  let type = 0;
  let raw = new Uint8Array();
  const shape: number[] = [];
  for (const [field, value] of fields(data)) {
    if (field === TENSOR.name) name = text(value);
    if (field === TENSOR.type) type = value as number;
    if (field === TENSOR.dims) shape.push(...integers(value));
    if (field === TENSOR.raw) raw = message(value).slice();
  }
  const count = shape.reduce((product, side) => product * side, 1);
  const sizes: Record<number, number> = { [TYPE.float]: 4, [TYPE.integer]: 8, [TYPE.half]: 2 };
  if (raw.length !== count * (sizes[type] ?? 0)) {
    throw new ModelError(`${name}: expected ${count} floats or integers, found type ${type}`);
  }
  if (type === TYPE.half) return [name, { shape, values: singles(new Uint16Array(raw.buffer)) }];
  if (type === TYPE.integer) return [name, { shape, values: new BigInt64Array(raw.buffer) }];
  return [name, { shape, values: new Float32Array(raw.buffer) }];
}

/** An input's or output's name. */
function nameOf(data: Uint8Array): string {
  for (const [field, value] of fields(data)) if (field === 1) return text(value);
  return "";
}

function message(value: Value): Uint8Array {
  if (typeof value === "number") throw new ModelError("damaged graph: expected a message");
  return value;
}

function text(value: Value): string {
  return new TextDecoder().decode(message(value));
}

function view(data: Uint8Array): DataView {
  return new DataView(data.buffer, data.byteOffset, data.byteLength);
}

/** One integer, or a packed run of them. */
function integers(value: Value): number[] {
  if (typeof value === "number") return [value];
  const found: number[] = [];
  for (let at = 0; at < value.length; ) {
    const [number, end] = varint(value, at);
    found.push(number);
    at = end;
  }
  return found;
}

/** Rounded beyond 2^53; negative numbers wrap. */
function varint(data: Uint8Array, at: number): [number, number] {
  let value = 0;
  for (let place = 0; place < 10; place++) {
    const byte = data[at++];
    if (byte === undefined) break;
    value += (byte & 127) * 2 ** (7 * place);
    if (byte < 128) return [value, at];
  }
  throw new ModelError("damaged graph: expected a number, found the end or too many digits");
}

function* fields(data: Uint8Array): Generator<[number, Value]> {
  for (let at = 0; at < data.length; ) {
    const [key, start] = varint(data, at);
    const field = Math.floor(key / 8);
    const kind = key % 8;
    at = start;
    if (kind === 0) {
      const [value, end] = varint(data, at);
      yield [field, value];
      at = end;
      continue;
    }
    let length = kind === 1 ? 8 : 4;
    if (kind === 2) [length, at] = varint(data, at);
    else if (kind !== 1 && kind !== 5) throw new ModelError(`damaged graph: found kind ${kind}`);
    if (at + length > data.length) throw new ModelError("damaged graph: found the end");
    yield [field, data.subarray(at, at + length)];
    at += length;
  }
}

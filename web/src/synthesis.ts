// A synthesis: an ONNX graph of convolutions as a list of steps over planes of floats.

import { ModelError } from "./errors.ts";
import type { Kernels } from "./kernels.ts";
import { SLOPE, clearBorder, convolve, floatLayer, padded, shuffledOrder, storeOffsets } from "./layers.ts";
import type { Layer, Run } from "./layers.ts";
import type { Tensor } from "./model_file.ts";
import { readGraph } from "./onnx.ts";
import type { Graph, Node } from "./onnx.ts";
import { plane } from "./planes.ts";

/** What is known of a value before a picture is there. */
interface Value {
  name: string;
  channels: number;
  /** Channels in memory, with those that fill up a group. */
  room: number;
  /** Pixels of it for each cell, a side. */
  zoom: number;
  /** Cells that it looks at beyond its own, on each side. */
  reach: number;
  /** Where its channels are a part of another value's. */
  part?: { of: Value; from: number };
}

type Step =
  | { kind: "input"; to: Value; index: number }
  | { kind: "concat"; to: Value; from: Value[] }
  | { kind: "conv"; to: Value; from: Value; layer: Layer; added?: Value; activate: boolean }
  | { kind: "add"; to: Value; from: [Value, Value] }
  | { kind: "activate"; to: Value; from: Value }
  | { kind: "shuffle"; to: Value; from: Value; block: number };

/** What stands between the last convolution and bytes. */
interface Ending {
  value: string;
  block: number;
  scale: number;
  offset: number;
}

/** An input of a synthesis: rows of `channels` floats, one for each cell, row by row. */
export interface CellRows {
  channels: number;
  values: Float32Array;
}

export class Synthesis {
  readonly #kernels: Kernels;
  readonly #steps: Step[] = [];
  readonly #lastUse = new Map<Value, number>();
  readonly #ending: Ending;
  readonly #result: Value;
  readonly #inputs: number[];
  /** Pixels of the picture for each cell, a side. */
  readonly zoom: number;
  /** Cells around a window that its picture depends on. */
  readonly reach: number;
  /** Bytes of work for each cell of a window. */
  readonly bytesPerCell: number;

  /** `inputChannels` are those of the graph's inputs, in their order. */
  constructor(kernels: Kernels, data: Uint8Array, inputChannels: number[]) {
    this.#kernels = kernels;
    this.#inputs = inputChannels;
    const graph = withoutCasts(readGraph(data));
    if (graph.inputs.length !== inputChannels.length || graph.outputs.length !== 1) {
      throw new ModelError(
        `synthesis: expected ${inputChannels.length} inputs and a picture, ` +
          `found ${graph.inputs.join(", ")} and ${graph.outputs.join(", ")}`,
      );
    }
    this.#ending = readEnding(graph);
    this.#result = this.#compile(graph);
    this.zoom = this.#result.zoom * this.#ending.block;
    this.reach = Math.ceil(this.#result.reach);
    this.#steps.forEach((step, i) => {
      for (const value of valuesOf(step)) this.#lastUse.set(value.part?.of ?? value, i);
    });
    this.#lastUse.set(this.#result, this.#steps.length);
    this.bytesPerCell = this.#workPerCell();
  }

  /**
   * The picture of a window of cells.
   *
   * `rows` are the graph's inputs for `columns` x `lines` cells. `inner` is the part, in cells, whose
   * picture is wanted. Returns RGBA, row by row, as a view that the next work overwrites.
   */
  render(
    rows: CellRows[],
    columns: number,
    lines: number,
    inner: { left: number; top: number; width: number; height: number },
  ): Uint8Array {
    const kernels = this.#kernels;
    const before = kernels.top;
    try {
      return this.#render(rows, columns, lines, inner);
    } finally {
      kernels.release(before);
    }
  }

  #render(
    rows: CellRows[],
    columns: number,
    lines: number,
    inner: { left: number; top: number; width: number; height: number },
  ): Uint8Array {
    const kernels = this.#kernels;
    const { run } = kernels;
    const runs = new Map<Value, Run>();
    const free = new Map<number, number[]>();
    const planeOf = ({ zoom }: Value): ReturnType<typeof plane> =>
      plane(columns * zoom, lines * zoom);
    const sizes = new Map<Value, number>();
    for (const { to } of this.#steps) sizes.set(to, planeOf(to).total * to.room * 4);
    shareSizes(sizes);
    const room = (value: Value): Run => {
      const size = sizes.get(value)!;
      const at = free.get(size)?.pop() ?? kernels.take(size);
      const to = { at, stride: value.room * 4 };
      runs.set(value, to);
      return to;
    };
    const runOf = (value: Value): Run => {
      if (!value.part) return runs.get(value)!;
      const whole = runs.get(value.part.of)!;
      return { at: whole.at + 4 * value.part.from, stride: whole.stride };
    };
    this.#steps.forEach((step, index) => {
      const to = room(step.to);
      const area = planeOf(step.to);
      const start = to.at + area.first * to.stride;
      if (step.kind === "input") {
        const { channels, values } = rows[step.index]!;
        run.clear(to.at, area.total * to.stride, 0, 1);
        const memory = kernels.floats(to.at, (area.total * to.stride) / 4);
        for (let cell = 0; cell < columns * lines; cell++) {
          const place = area.first + Math.floor(cell / columns) * area.row + (cell % columns);
          const row = values.subarray(cell * channels, (cell + 1) * channels);
          memory.set(row, (place * to.stride) / 4);
        }
      } else if (step.kind === "concat") {
        run.clear(to.at, area.total * to.stride, 0, 1);
        let at = to.at;
        for (const value of step.from) {
          const from = runOf(value);
          run.copyChannels(from.at, from.stride, at, to.stride, 4 * value.channels, area.total);
          at += 4 * value.channels;
        }
      } else if (step.kind === "conv") {
        const from = runOf(step.from);
        const added = step.added && runOf(step.added);
        const offsets = storeOffsets(kernels, step.layer, area, from.stride);
        convolve(kernels, step.layer, offsets, from, to, area.first, area.run, {
          ...(added && { added }),
          activate: step.activate,
        });
        clearBorder(kernels, to, area);
      } else if (step.kind === "add") {
        const [a, b] = step.from.map(runOf) as [Run, Run];
        run.copyChannels(a.at, a.stride, to.at, to.stride, to.stride, area.total);
        run.add(b.at, to.at, (area.total * to.stride) / 4);
      } else if (step.kind === "activate") {
        run.leakyRelu(runOf(step.from).at, to.at, (area.total * to.stride) / 4, SLOPE);
      } else {
        const from = runOf(step.from);
        const small = planeOf(step.from);
        run.shuffle(
          from.at + small.first * from.stride, from.stride, small.row * from.stride,
          small.width, small.height,
          start, to.stride, area.row * to.stride,
          step.block, to.stride,
        );
        clearBorder(kernels, to, area);
      }
      for (const value of new Set(valuesOf(step).map((value) => value.part?.of ?? value))) {
        if (this.#lastUse.get(value) !== index) continue;
        const size = sizes.get(value)!;
        free.set(size, [...(free.get(size) ?? []), runs.get(value)!.at]);
      }
    });
    const value = this.#result;
    const { block, scale, offset } = this.#ending;
    const area = planeOf(value);
    const from = runOf(value);
    const side = value.zoom;
    const rowBytes = inner.width * this.zoom * 4;
    const bytes = rowBytes * inner.height * this.zoom;
    const to = kernels.take(bytes);
    const first = area.first + inner.top * side * area.row + inner.left * side;
    run.toBytes(
      from.at + first * from.stride, from.stride, area.row * from.stride,
      inner.width * side, inner.height * side, block,
      to, rowBytes, scale, offset,
    );
    return kernels.bytes(to, bytes);
  }

  /** Bytes that the rooms of all values take, for each cell, if each is used again. */
  #workPerCell(): number {
    const sizes = new Map<Value, number>();
    for (const { to } of this.#steps) sizes.set(to, 4 * to.room * to.zoom ** 2);
    shareSizes(sizes);
    const free = new Map<number, number>();
    let bytes = 0;
    this.#steps.forEach((step, index) => {
      const size = sizes.get(step.to)!;
      if (free.get(size)) free.set(size, free.get(size)! - 1);
      else bytes += size;
      for (const value of new Set(valuesOf(step).map((value) => value.part?.of ?? value))) {
        const left = sizes.get(value)!;
        if (this.#lastUse.get(value) === index) free.set(left, (free.get(left) ?? 0) + 1);
      }
    });
    return bytes;
  }

  #compile(graph: Graph): Value {
    const values = new Map<string, Value>();
    graph.inputs.forEach((name, index) => {
      const channels = this.#inputs[index]!;
      const value = { name, channels, room: padded(channels), zoom: 1, reach: 0 };
      values.set(name, value);
      this.#steps.push({ kind: "input", to: value, index });
    });
    const uses = new Map<string, Node[]>();
    for (const node of graph.nodes) {
      for (const name of node.inputs) uses.set(name, [...(uses.get(name) ?? []), node]);
    }
    const orders = wantedOrders(graph, this.#ending);
    const get = (name: string | undefined): Value => {
      const found = values.get(name ?? "");
      if (!found) throw new ModelError(`synthesis: expected a value ${name} before it is used`);
      return found;
    };
    const define = (name: string, value: Omit<Value, "name" | "room">, room?: number): Value => {
      const made = { name, room: room ?? padded(value.channels), ...value };
      values.set(name, made);
      return made;
    };
    const joined = new Set<Node>();
    const only = (name: string, operator: string): Node | undefined => {
      const found = uses.get(name) ?? [];
      return found.length === 1 && found[0]!.operator === operator ? found[0] : undefined;
    };
    for (const node of graph.nodes) {
      if (joined.has(node)) continue;
      const [output = ""] = node.outputs;
      switch (node.operator) {
        case "Slice": {
          const [start, stop] = sliceOf(graph, node);
          const of = get(node.inputs[0]);
          const channels = Math.min(stop, of.channels) - start;
          if (channels < 1 || of.part) throw new ModelError("synthesis: found an empty slice");
          define(output, { channels, zoom: of.zoom, reach: of.reach, part: { of, from: start } });
          break;
        }
        case "Concat": {
          expectInteger(node, "axis", 1);
          const from = node.inputs.map(get);
          const channels = from.reduce((sum, value) => sum + value.channels, 0);
          const reach = Math.max(...from.map((value) => value.reach));
          const to = define(output, { channels, zoom: from[0]!.zoom, reach });
          this.#steps.push({ kind: "concat", to, from });
          break;
        }
        case "Conv": {
          const from = get(node.inputs[0]);
          const [weight, bias] = node.inputs.slice(1).map((name) => graph.weights.get(name));
          if (!weight) throw new ModelError("synthesis: expected a convolution with weights");
          expectPlain(node, weight, from);
          let name = output;
          let added: Value | undefined;
          const sum = only(name, "Add");
          const other = sum?.inputs.find((input) => input !== name);
          if (sum && other && values.has(other)) {
            added = get(other);
            joined.add(sum);
            name = sum.outputs[0]!;
          }
          const activation = only(name, "LeakyRelu");
          if (activation) {
            expectSlope(activation);
            joined.add(activation);
            name = activation.outputs[0]!;
          }
          const layer = floatLayer(this.#kernels, output, weight, bias, orders.get(output));
          const reach = Math.max(
            from.reach + (layer.taps === 9 ? 1 / from.zoom : 0),
            added?.reach ?? 0,
          );
          const channels = weight.shape[0]!;
          const to = define(name, { channels, zoom: from.zoom, reach }, layer.outputs);
          if (added && added.room !== to.room) {
            throw new ModelError("synthesis: expected sums of equal numbers of channels");
          }
          this.#steps.push({
            kind: "conv", to, from, layer, activate: !!activation, ...(added && { added }),
          });
          break;
        }
        case "LeakyRelu": {
          expectSlope(node);
          const { channels, room, zoom, reach, part } = get(node.inputs[0]);
          if (part) throw new ModelError("synthesis: expected a whole value to activate");
          const to = define(output, { channels, zoom, reach }, room);
          this.#steps.push({ kind: "activate", to, from: get(node.inputs[0]) });
          break;
        }
        case "Add": {
          const from = node.inputs.map(get) as [Value, Value];
          const [a, b] = from;
          if (from.length !== 2 || a.room !== b.room || a.part || b.part) {
            throw new ModelError("synthesis: expected a sum of two values of equal channels");
          }
          const reach = Math.max(a.reach, b.reach);
          const to = define(output, { channels: a.channels, zoom: a.zoom, reach }, a.room);
          this.#steps.push({ kind: "add", to, from });
          break;
        }
        case "DepthToSpace": {
          const from = get(node.inputs[0]);
          const block = blockOf(node);
          const channels = from.channels / block ** 2;
          const to = define(output, { channels, zoom: from.zoom * block, reach: from.reach });
          this.#steps.push({ kind: "shuffle", to, from, block });
          break;
        }
        case "MaxPool":
          if (node.attributes.get("kernel_shape")?.integers.some((side) => side !== 1)) {
            throw new ModelError("synthesis: expected no pooling");
          }
          values.set(output, get(node.inputs[0]));
          break;
        default:
          throw new ModelError(`synthesis: expected plain layers, found ${node.operator}`);
      }
    }
    return get(this.#ending.value);
  }
}

/** Large values get rooms of one size, so that each may have the room of another. */
function shareSizes(sizes: Map<Value, number>): void {
  const largest = Math.max(...sizes.values());
  for (const [value, size] of sizes) if (size > largest / 2) sizes.set(value, largest);
}

function valuesOf(step: Step): Value[] {
  if (step.kind === "input") return [];
  if (step.kind === "concat" || step.kind === "add") return step.from;
  return step.kind === "conv" && step.added ? [step.from, step.added] : [step.from];
}

/** Weights are halves with a cast behind them. */
function withoutCasts(graph: Graph): Graph {
  const nodes = graph.nodes.filter((node) => {
    const weight = graph.weights.get(node.inputs[0] ?? "");
    if (node.operator !== "Cast" || !weight) return true;
    graph.weights.set(node.outputs[0]!, weight);
    return false;
  });
  return { ...graph, nodes };
}

/** Takes the nodes that turn floats into bytes off the graph's end. */
function readEnding(graph: Graph): Ending {
  const makers = new Map(graph.nodes.map((node) => [node.outputs[0]!, node]));
  const scalar = (name: string | undefined): number => {
    const found = graph.weights.get(name ?? "");
    if (found?.values.length !== 1) throw new ModelError("synthesis: expected a number at the end");
    return Number(found.values[0]);
  };
  const ending: Ending = { value: graph.outputs[0]!, block: 1, scale: 1, offset: 0 };
  const expected = ["Transpose", "DepthToSpace", "Cast", "Round", "Clip", "Add", "Mul", "DepthToSpace"];
  const found: string[] = [];
  const constant = (name: string | undefined): boolean => graph.weights.has(name ?? "");
  for (;;) {
    const node = makers.get(ending.value);
    if (!node || !expected.includes(node.operator)) break;
    if (node.operator === "Add" && !constant(node.inputs[1])) break;
    if (node.operator === "Add") ending.offset = scalar(node.inputs[1]);
    if (node.operator === "Mul") ending.scale = scalar(node.inputs[1]);
    if (node.operator === "DepthToSpace") ending.block *= blockOf(node);
    if (node.operator === "Clip") {
      const [low, high] = [scalar(node.inputs[1]), scalar(node.inputs[2])];
      if (low !== 0 || high !== 255) throw new ModelError("synthesis: expected values of 0 to 255");
    }
    if (node.operator === "Transpose") {
      if (node.attributes.get("perm")?.integers.join() !== "0,2,3,1") {
        throw new ModelError("synthesis: expected channels at the end");
      }
    }
    found.push(node.operator);
    ending.value = node.inputs[0]!;
    graph.nodes.splice(graph.nodes.indexOf(node), 1);
  }
  const order = found.filter((operator) => operator !== "DepthToSpace").join();
  if (order !== "Transpose,Cast,Round,Clip,Add,Mul" || found.length > 7) {
    throw new ModelError(`synthesis: expected a picture of bytes, found ${found.join()}`);
  }
  return ending;
}

/** Outputs of convolutions whose channels are to lie as pixels: before a shuffle, at the end. */
function wantedOrders(graph: Graph, ending: Ending): Map<string, number[]> {
  const makers = new Map(graph.nodes.map((node) => [node.outputs[0]!, node]));
  const orders = new Map<string, number[]>();
  const want = (name: string, order: (outputs: number) => number[]): void => {
    const node = makers.get(name);
    if (node?.operator === "Conv") {
      const outputs = graph.weights.get(node.inputs[1]!)?.shape[0] ?? 0;
      orders.set(name, order(outputs));
    } else if (node?.operator === "Add" || node?.operator === "LeakyRelu") {
      for (const input of node.inputs) want(input, order);
    } else {
      throw new ModelError(`synthesis: expected a convolution before a shuffle of ${name}`);
    }
  };
  for (const node of graph.nodes) {
    if (node.operator !== "DepthToSpace") continue;
    const block = blockOf(node);
    want(node.inputs[0]!, (outputs) => shuffledOrder(outputs / block ** 2, block));
  }
  want(ending.value, (outputs) => {
    if (outputs !== 3 * ending.block ** 2) throw new ModelError("synthesis: expected 3 colours");
    return shuffledOrder(3, ending.block, 3);
  });
  return orders;
}

function blockOf(node: Node): number {
  const block = node.attributes.get("blocksize")?.integer ?? 0;
  if (node.attributes.get("mode")?.text !== "CRD" || block < 2 || block > 8) {
    throw new ModelError("synthesis: expected shuffles by channel first, of 2 to 8");
  }
  return block;
}

function sliceOf(graph: Graph, node: Node): [number, number] {
  const [start, stop, axis, step] = node.inputs.slice(1).map((name) => {
    const values = graph.weights.get(name)?.values;
    return values?.length === 1 ? Number(values[0]) : NaN;
  });
  if (axis !== 1 || (step !== 1 && node.inputs.length > 4) || !(start! >= 0) || !(stop! > 0)) {
    throw new ModelError("synthesis: expected slices of channels");
  }
  return [start!, stop!];
}

function expectInteger(node: Node, name: string, expected: number): void {
  const found = node.attributes.get(name)?.integer ?? expected;
  if (found !== expected) {
    throw new ModelError(`synthesis: ${node.operator}: expected ${name} ${expected}, found ${found}`);
  }
}

function expectSlope(node: Node): void {
  const slope = node.attributes.get("alpha")?.float ?? 0.01;
  if (slope !== Math.fround(SLOPE)) {
    throw new ModelError(`synthesis: expected a slope of ${SLOPE}, found ${slope}`);
  }
}

/** A convolution that keeps a plane's size and sees all its channels. */
function expectPlain(node: Node, weight: Tensor, from: Value): void {
  expectInteger(node, "group", 1);
  const same = (name: string, expected: number): boolean =>
    (node.attributes.get(name)?.integers ?? [expected]).every((value) => value === expected);
  const side = weight.shape[2] ?? 0;
  const pads = node.attributes.get("pads")?.integers ?? [0, 0, 0, 0];
  if (
    weight.shape[1] !== from.channels ||
    !same("strides", 1) ||
    !same("dilations", 1) ||
    pads.some((pad) => pad !== (side - 1) / 2)
  ) {
    throw new ModelError(
      `synthesis: expected a convolution of ${from.channels} channels that keeps the size, ` +
        `found the shape ${weight.shape.join(" x ")}`,
    );
  }
}

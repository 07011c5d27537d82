// Convolutions in the form that the kernels read: packed weights, and what they are exact for.

import { ModelError } from "./errors.ts";
import { multipleOf } from "./kernels.ts";
import type { Kernels } from "./kernels.ts";
import type { Tensor } from "./model_file.ts";
import { tapOffsets } from "./planes.ts";
import type { Plane } from "./planes.ts";

export const SLOPE = 0.1;
const OUTPUT_GROUP = 8;
const INPUT_GROUP = 4;

/** Channels of a layer's output in memory. */
export function padded(channels: number): number {
  return multipleOf(channels, OUTPUT_GROUP);
}

/** Some of the taps of a kernel, packed for one kind of neighbours. */
interface Packed {
  weights: number;
  taps: number[];
}

export interface Layer {
  inputs: number;
  outputs: number;
  taps: number;
  bias: number;
  all: Packed;
}

export interface IntegerLayer extends Layer {
  /** Whether inputs go in two parts, since sums of whole ones might not fit 32 bits. */
  split: boolean;
}

function shapeOf(weight: Tensor, name: string): { outputs: number; inputs: number; taps: number } {
  const [outputs, inputs, height, width] = weight.shape;
  const square = height === width && (height === 1 || height === 3);
  if (weight.shape.length !== 4 || !square || !outputs || !inputs) {
    throw new ModelError(
      `${name}: expected a convolution of 1x1 or 3x3, found the shape ${weight.shape.join(" x ")}`,
    );
  }
  return { outputs, inputs, taps: height * width! };
}

/**
 * A layer of floats.
 *
 * `order` names, for each output in memory, the output of the layer that stands there, or -1.
 */
export function floatLayer(
  kernels: Kernels,
  name: string,
  weight: Tensor,
  bias: Tensor | undefined,
  order?: number[],
  chosen?: number[],
): Layer {
  const { outputs, inputs, taps } = shapeOf(weight, name);
  if (!(weight.values instanceof Float32Array) || (bias && bias.values.length !== outputs)) {
    throw new ModelError(`${name}: expected floats and a bias for each output`);
  }
  const places = order ?? Array.from({ length: outputs }, (_, i) => i);
  const count = padded(places.length);
  const biases = new Float32Array(count);
  if (bias) places.forEach((output, i) => output >= 0 && (biases[i] = Number(bias.values[output])));
  const used = chosen ?? Array.from({ length: taps }, (_, i) => i);
  const packed = new Float32Array(count * multipleOf(inputs, INPUT_GROUP) * used.length);
  pack(packed, weight.values, inputs, taps, used, places, 1);
  return {
    inputs,
    outputs: count,
    taps,
    bias: kernels.store(biases),
    all: { weights: kernels.store(packed), taps: used },
  };
}

/**
 * A layer of integers whose inputs are at most `maxInput` in magnitude.
 *
 * Proves that sums of products fit 32 bits, or splits the inputs in two parts for which they do.
 */
export function integerLayer(
  kernels: Kernels,
  name: string,
  weight: Tensor,
  bias: Tensor,
  maxInput: number,
  order?: number[],
  chosen?: number[],
): IntegerLayer {
  const { outputs, inputs, taps } = shapeOf(weight, name);
  const { values } = weight;
  if (!(values instanceof Int16Array) || !(bias.values instanceof BigInt64Array)) {
    throw new ModelError(`${name}: expected weights of 16 bits and biases of 64`);
  }
  if (bias.values.length !== outputs) throw new ModelError(`${name}: expected ${outputs} biases`);
  let largest = 0;
  const size = inputs * taps;
  for (let output = 0; output < outputs; output++) {
    let sum = 0;
    for (let i = output * size; i < (output + 1) * size; i++) sum += Math.abs(values[i]!);
    largest = Math.max(largest, sum);
    const term = bias.values[output]!;
    if (term >= 2n ** 52n || term <= -(2n ** 52n)) {
      throw new ModelError(`${name}: expected biases below 2^52, found ${term}`);
    }
  }
  const split = largest * maxInput >= 2 ** 31;
  if (split && largest * 256 >= 2 ** 31) {
    throw new ModelError(`${name}: expected weights of an output below 2^23 in sum, found more`);
  }
  const places = order ?? Array.from({ length: outputs }, (_, i) => i);
  const count = padded(places.length);
  const biases = new BigInt64Array(count);
  const terms = bias.values;
  places.forEach((output, i) => output >= 0 && (biases[i] = terms[output]!));
  const used = chosen ?? Array.from({ length: taps }, (_, i) => i);
  const packed = new Int16Array(count * multipleOf(inputs, INPUT_GROUP) * used.length);
  pack(packed, values, inputs, taps, used, places, 2);
  return {
    inputs,
    outputs: count,
    taps,
    split,
    bias: kernels.store(biases),
    all: { weights: kernels.store(packed), taps: used },
  };
}

/** For every 8 outputs, every tap, every `together` inputs: 8 times `together` weights. */
function pack(
  to: Float32Array | Int16Array,
  from: Float32Array | Int16Array,
  inputs: number,
  taps: number,
  used: number[],
  places: number[],
  together: number,
): void {
  const rows = multipleOf(inputs, INPUT_GROUP);
  places.forEach((output, place) => {
    if (output < 0) return;
    const group = Math.floor(place / OUTPUT_GROUP);
    used.forEach((tap, index) => {
      const base = (group * used.length + index) * rows * OUTPUT_GROUP;
      const step = OUTPUT_GROUP * together;
      for (let part = 0; part < together; part++) {
        let target = base + (place % OUTPUT_GROUP) * together + part;
        let source = (output * inputs + part) * taps + tap;
        for (let input = part; input < inputs; input += together) {
          to[target] = from[source]!;
          target += step;
          source += taps * together;
        }
      }
    });
  });
}

/**
 * The order of outputs that makes a block of pixels of each of `channels`: row by row, and for each
 * pixel its channels, up to `room`. The layer's own order is by channel first.
 */
export function shuffledOrder(channels: number, block: number, room = padded(channels)): number[] {
  const order: number[] = [];
  for (let place = 0; place < block * block; place++) {
    for (let channel = 0; channel < room; channel++) {
      order.push(channel < channels ? channel * block * block + place : -1);
    }
  }
  return order;
}

/** A run of pixels in memory. */
export interface Run {
  at: number;
  /** In bytes, from pixel to pixel. */
  stride: number;
}

/** `to` = the layer of `from`, + `added`, activated: for pixels `first` to `first + count`. */
export function convolve(
  kernels: Kernels,
  layer: Layer,
  offsets: number,
  from: Run,
  to: Run,
  first: number,
  count: number,
  { added, activate = false }: { added?: Run; activate?: boolean } = {},
): void {
  kernels.run.convolve(
    from.at + first * from.stride,
    from.stride,
    to.at + first * to.stride,
    to.stride,
    count,
    layer.all.weights,
    layer.bias,
    offsets,
    layer.all.taps.length,
    multipleOf(layer.inputs, INPUT_GROUP),
    layer.outputs,
    added ? added.at + first * added.stride : 0,
    added?.stride ?? 0,
    activate,
    SLOPE,
  );
}

/**
 * int64 `to` (+)= the integer layer of int16 `from`, bias included.
 *
 * `from` has rooms of whole groups of 8 inputs a pixel, and `pixels` of them in all.
 */
export function multiply(
  kernels: Kernels,
  layer: IntegerLayer,
  offsets: number,
  from: Run & { pixels: number },
  to: Run,
  first: number,
  count: number,
  onto = false,
): void {
  const { run } = kernels;
  const before = kernels.top;
  const rounded = multipleOf(count, 4);
  const sums = kernels.take(rounded * layer.outputs * 4);
  const highSums = layer.split ? kernels.take(rounded * layer.outputs * 4) : 0;
  const part = (at: number, into: number): void =>
    run.multiply(
      at + first * from.stride,
      from.stride,
      into,
      count,
      layer.all.weights,
      offsets,
      layer.all.taps.length,
      multipleOf(layer.inputs, INPUT_GROUP),
      layer.outputs,
    );
  if (layer.split) {
    const bytes = from.pixels * from.stride;
    const high = kernels.take(bytes);
    const low = kernels.take(bytes);
    run.splitInputs(from.at, high, low, bytes / 2);
    part(high, highSums);
    part(low, sums);
  } else {
    part(from.at, sums);
  }
  run.total(
    highSums,
    sums,
    layer.bias,
    to.at + first * to.stride,
    count,
    layer.outputs,
    onto,
  );
  kernels.release(before);
}

/** Offsets of a layer's taps in bytes, in memory. */
export function storeOffsets(kernels: Kernels, layer: Layer, plane: Plane, stride: number): number {
  const offsets = tapOffsets(layer.taps, plane.row);
  return kernels.store(Int32Array.from(layer.all.taps, (tap) => offsets[tap]! * stride));
}

/** Zeros around a picture, after a loop over the run of its pixels. */
export function clearBorder(kernels: Kernels, { at, stride }: Run, plane: Plane): void {
  const { run } = kernels;
  run.clear(at, plane.first * stride, 0, 1);
  run.clear(at + 2 * plane.row * stride, stride, plane.row * stride, plane.height - 1);
  const behind = plane.first + plane.run;
  run.clear(at + behind * stride, (plane.total - behind) * stride, 0, 1);
}

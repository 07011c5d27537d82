// The two networks that say what to expect of a latent: the scale network names tables, in exact
// integers, the mean network gives means, in floats. Both are asked once for each coding step, for
// every second cell: cells of either parity lie in a run of their own, a half, in which the
// neighbours of a cell are at constant places, since rows with their border have odd lengths.

import { ModelError } from "./errors.ts";
import type { Kernels } from "./kernels.ts";
import {
  SLOPE,
  clearBorder,
  convolve,
  floatLayer,
  integerLayer,
  multiply,
  padded,
  shuffledOrder,
  storeOffsets,
} from "./layers.ts";
import type { IntegerLayer, Layer, Run } from "./layers.ts";
import type { Tensor } from "./model_file.ts";
import { plane, tapOffsets } from "./planes.ts";
import type { Plane } from "./planes.ts";

export const HYPER_CELLS = 4;
export const MAX_HYPER = 63;
export const CONDITION_CHANNELS = 5;
const MAX_ACTIVATION = 32767;
const MAX_PLANE = 16384;

/** Cells of a tile's grid, a multiple of 4 a side, and what is coded of it. */
export interface Grid {
  /** Own cells of the tile. */
  width: number;
  height: number;
  plane: Plane;
  /** Levels of all cells of the grid, row by row. */
  levels: Int8Array;
  q: number;
  /** Hyper-latents, channel by channel. */
  hyper: Int8Array;
  halves: [Half, Half];
}

/** Every second cell. */
export interface Half {
  parity: number;
  /** All places of the half, those of borders included. */
  total: number;
  /** Places between which all cells of the grid lie. */
  first: number;
  count: number;
  /** Places of own cells, row by row. */
  own: Int32Array;
  /** Their numbers among own cells. */
  cells: Int32Array;
  /** Places of the grid's other cells. */
  others: Int32Array;
}

export function makeGrid(
  width: number,
  height: number,
  levels: Int8Array,
  q: number,
  hyper: Int8Array,
): Grid {
  const cells = plane(
    HYPER_CELLS * Math.ceil(width / HYPER_CELLS),
    HYPER_CELLS * Math.ceil(height / HYPER_CELLS),
  );
  const half = (parity: number): Half => {
    const own: number[] = [];
    const numbers: number[] = [];
    const others: number[] = [];
    for (let y = 0; y < cells.height; y++) {
      for (let x = (y + parity) % 2; x < cells.width; x += 2) {
        const place = (cells.first + y * cells.row + x - parity) / 2;
        if (x < width && y < height) {
          own.push(place);
          numbers.push(y * width + x);
        } else {
          others.push(place);
        }
      }
    }
    return {
      parity,
      total: Math.ceil(cells.total / 2) + 4,
      first: Math.floor(cells.first / 2),
      count: Math.floor(cells.run / 2) + 1,
      own: Int32Array.from(own),
      cells: Int32Array.from(numbers),
      others: Int32Array.from(others),
    };
  };
  return { width, height, plane: cells, levels, q, hyper, halves: [half(0), half(1)] };
}

interface Absorbing<L> {
  /** The taps that see cells of the same parity, and those that see the other. */
  same: L;
  other: L;
}

interface Layers<L> {
  hyper64: L;
  to32: L;
  hyper32: L;
  to16: L;
  planes: L;
  absorb: Absorbing<L>[];
  hidden: L[];
  heads: L[];
}

type Make<L> = (
  name: string,
  weight: Tensor,
  bias: Tensor,
  order?: number[],
  chosen?: number[],
) => L;

/** The layers of a network, in the order of docs/format.md, with fitting numbers of channels. */
function readLayers<L extends Layer>(
  arrays: Map<string, Tensor>,
  network: string,
  groups: number[],
  hyperChannels: number,
  planes: number,
  make: Make<L>,
): { layers: Layers<L>; state: number } {
  const array = (name: string): Tensor => {
    const found = arrays.get(name);
    if (!found) throw new ModelError(`expected an array ${name}, found none`);
    return found;
  };
  const read = (name: string, inputs: number, order?: number[], chosen?: number[]): L => {
    const weight = array(`${network}.${name}.weight`);
    if (weight.shape[1] !== inputs) {
      throw new ModelError(
        `${network}.${name}: expected ${inputs} inputs, found ${weight.shape[1]}`,
      );
    }
    return make(`${network}.${name}`, weight, array(`${network}.${name}.bias`), order, chosen);
  };
  const outputsOf = (name: string): number => array(`${network}.${name}.weight`).shape[0] ?? 0;
  const shuffled = (name: string, inputs: number): { layer: L; channels: number } => {
    const channels = outputsOf(name) / 4;
    if (!Number.isInteger(channels)) {
      throw new ModelError(`${network}.${name}: expected 4 outputs for each channel`);
    }
    return { layer: read(name, inputs, shuffledOrder(channels, 2)), channels };
  };
  const hyper64 = read("hyper_64", hyperChannels);
  const to32 = shuffled("to_32", outputsOf("hyper_64"));
  const hyper32 = read("hyper_32", to32.channels);
  const to16 = shuffled("to_16", outputsOf("hyper_32"));
  const state = to16.channels;
  const steps = groups.flatMap((channels, group) => [2 * group, 2 * group + 1].map((step) => {
    const hidden = read(`hidden.${step}`, state);
    const head = read(`head.${step}`, outputsOf(`hidden.${step}`));
    if (hidden.taps !== 1 || head.taps !== 1 || outputsOf(`head.${step}`) !== channels) {
      throw new ModelError(
        `${network}: step ${step}: expected 1x1 layers that end in ${channels} outputs`,
      );
    }
    return { hidden, head };
  }));
  const absorb = groups.map((channels, group) => {
    const name = `absorb_group.${group}`;
    const taps = array(`${network}.${name}.weight`).shape[2] === 3 ? 9 : 1;
    const every = Array.from({ length: taps }, (_, tap) => tap);
    return {
      same: read(name, channels, undefined, every.filter((tap) => tap % 2 === 0)),
      other: read(name, channels, undefined, every.filter((tap) => tap % 2 === 1)),
    };
  });
  const fromPlanes = read("from_planes", planes);
  for (const [name, outputs] of [
    ["from_planes", outputsOf("from_planes")],
    ...groups.map((_, i) => [`absorb_group.${i}`, outputsOf(`absorb_group.${i}`)] as const),
  ] as const) {
    if (outputs !== state) {
      throw new ModelError(`${network}.${name}: expected ${state} outputs, found ${outputs}`);
    }
  }
  return {
    state,
    layers: {
      hyper64,
      to32: to32.layer,
      hyper32,
      to16: to16.layer,
      planes: fromPlanes,
      absorb,
      hidden: steps.map(({ hidden }) => hidden),
      heads: steps.map(({ head }) => head),
    },
  };
}

/** Where a layer that sees one half looks from the other, or from the same, in bytes. */
function halfOffsets(
  kernels: Kernels,
  layer: Layer,
  row: number,
  stride: number,
  seen: number,
  seeing: number,
): number {
  const offsets = tapOffsets(layer.taps, row);
  return kernels.store(
    Int32Array.from(layer.all.taps, (tap) => ((seeing + offsets[tap]! - seen) / 2) * stride),
  );
}

/** A plane's pixels into two halves. */
function halve(kernels: Kernels, from: Run, halves: [Half, Half]): [Run, Run] {
  const split = ({ parity, total }: Half): Run => {
    const at = kernels.take(total * from.stride);
    kernels.run.copyChannels(
      from.at + parity * from.stride,
      2 * from.stride,
      at,
      from.stride,
      from.stride,
      total - 4,
    );
    return { at, stride: from.stride };
  };
  return [split(halves[0]), split(halves[1])];
}

/** Names the tables of symbols, exactly. */
export class ScaleNetwork {
  readonly #kernels: Kernels;
  readonly #layers: Layers<IntegerLayer>;
  readonly #magnitudes: Int16Array;

  constructor(
    kernels: Kernels,
    arrays: Map<string, Tensor>,
    groups: number[],
    hyperChannels: number,
  ) {
    const magnitudes = arrays.get("magnitudes")?.values;
    if (!(magnitudes instanceof Int16Array) || magnitudes.length !== 256) {
      throw new ModelError("expected 256 magnitudes of 16 bits");
    }
    const largest = magnitudes.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    const make: Make<IntegerLayer> = (name, weight, bias, order, chosen) => {
      let most = MAX_ACTIVATION;
      if (name.includes("hyper_64")) most = 256 * MAX_HYPER;
      if (name.includes("planes")) most = MAX_PLANE;
      if (name.includes("absorb")) most = largest;
      return integerLayer(kernels, name, weight, bias, most, order, chosen);
    };
    this.#kernels = kernels;
    this.#magnitudes = magnitudes;
    this.#layers = readLayers(arrays, "scale", groups, hyperChannels, 2, make).layers;
  }

  /** Memory of what follows, up to the last step, lies above the kernels' top. */
  begin(grid: Grid): ScaleSteps {
    const kernels = this.#kernels;
    const { hyper64, to32, hyper32, to16, planes } = this.#layers;
    const { levels, q } = grid;
    const small = plane(grid.plane.width / HYPER_CELLS, grid.plane.height / HYPER_CELLS);
    const middle = plane(2 * small.width, 2 * small.height);
    const stateStride = to16.outputs * 2;
    const full: Run = { at: kernels.takeZeros(grid.plane.total * stateStride), stride: stateStride };
    const before = kernels.top;
    const hyper = this.#tensor(hyper64.inputs, small);
    const values = kernels.shorts(hyper.at, (hyper.pixels * hyper.stride) / 2);
    fillHyper(grid, small, (place, channel, z) => {
      values[(place * hyper.stride) / 2 + channel] = 256 * z;
    });
    const a = this.#activated(hyper64, hyper, small);
    const b = this.#shuffled(to32, a, small, middle);
    const c = this.#activated(hyper32, b, middle);
    const deep = this.#sums(to16, c, middle);
    kernels.run.shuffle(
      deep.at + middle.first * deep.stride, deep.stride, middle.row * deep.stride,
      middle.width, middle.height,
      full.at + grid.plane.first * full.stride, full.stride, grid.plane.row * full.stride,
      2, full.stride,
    );
    const told = this.#tensor(2, grid.plane);
    const inputs = kernels.shorts(told.at, (told.pixels * told.stride) / 2);
    for (let y = 0; y < grid.plane.height; y++) {
      for (let x = 0; x < grid.plane.width; x++) {
        const place = ((grid.plane.first + y * grid.plane.row + x) * told.stride) / 2;
        inputs[place] = 256 * levels[y * grid.plane.width + x]!;
        inputs[place + 1] = 4 * q;
      }
    }
    const offsets = storeOffsets(kernels, planes, grid.plane, told.stride);
    multiply(kernels, planes, offsets, told, full, grid.plane.first, grid.plane.run, true);
    kernels.release(before);
    return new ScaleSteps(
      kernels,
      this.#layers,
      this.#magnitudes,
      grid,
      halve(kernels, full, grid.halves),
    );
  }

  #tensor(channels: number, { total }: Plane): Run & { pixels: number } {
    const stride = padded(channels) * 2;
    return { at: this.#kernels.takeZeros(total * stride), stride, pixels: total };
  }

  #sums(layer: IntegerLayer, from: Run & { pixels: number }, plane: Plane): Run {
    const stride = layer.outputs * 8;
    const to = { at: this.#kernels.take(plane.total * stride), stride };
    const offsets = storeOffsets(this.#kernels, layer, plane, from.stride);
    multiply(this.#kernels, layer, offsets, from, to, plane.first, plane.run);
    return to;
  }

  #activated(
    layer: IntegerLayer,
    from: Run & { pixels: number },
    plane: Plane,
  ): Run & { pixels: number } {
    const sums = this.#sums(layer, from, plane);
    const to = this.#tensor(layer.outputs, plane);
    this.#kernels.run.activate(
      sums.at + plane.first * sums.stride,
      to.at + plane.first * to.stride,
      plane.run * layer.outputs,
    );
    clearBorder(this.#kernels, to, plane);
    return to;
  }

  #shuffled(
    layer: IntegerLayer,
    from: Run & { pixels: number },
    small: Plane,
    large: Plane,
  ): Run & { pixels: number } {
    const deep = this.#activated(layer, from, small);
    const to = this.#tensor(layer.outputs / 4, large);
    this.#kernels.run.shuffle(
      deep.at + small.first * deep.stride, deep.stride, small.row * deep.stride,
      small.width, small.height,
      to.at + large.first * to.stride, to.stride, large.row * to.stride,
      2, to.stride,
    );
    return to;
  }
}

/** One tile's way through the scale network. */
export class ScaleSteps {
  readonly #kernels: Kernels;
  readonly #layers: Layers<IntegerLayer>;
  readonly #magnitudes: Int16Array;
  readonly #grid: Grid;
  readonly #states: [Run, Run];

  constructor(
    kernels: Kernels,
    layers: Layers<IntegerLayer>,
    magnitudes: Int16Array,
    grid: Grid,
    states: [Run, Run],
  ) {
    this.#kernels = kernels;
    this.#layers = layers;
    this.#magnitudes = magnitudes;
    this.#grid = grid;
    this.#states = states;
  }

  /** Numbers of tables of a step's own cells, uint8, channel by channel; `channels` of them. */
  tables(step: number, channels: number): number {
    const kernels = this.#kernels;
    const { run } = kernels;
    const half = this.#grid.halves[step % 2]!;
    const count = half.own.length;
    const numbers = kernels.take(channels * count);
    const before = kernels.top;
    const hidden = this.#layers.hidden[step]!;
    const head = this.#layers.heads[step]!;
    const state = this.#states[step % 2]!;
    const offsets = kernels.store(new Int32Array(1));
    const start = half.first;
    const seen = this.#activations(half, state, state.stride / 8, start);
    const sums = { at: kernels.take(half.total * hidden.outputs * 8), stride: hidden.outputs * 8 };
    multiply(kernels, hidden, offsets, seen, sums, start, half.count);
    const deep = this.#activations(half, sums, hidden.outputs, start);
    const u = { at: kernels.take(half.total * head.outputs * 8), stride: head.outputs * 8 };
    multiply(kernels, head, offsets, deep, u, start, half.count);
    const { q, levels, plane, width } = this.#grid;
    const terms = BigInt64Array.from(half.cells, (cell) => {
      const level = levels[Math.floor(cell / width) * plane.width + (cell % width)]!;
      return BigInt(24576 * (64 * level + q) + 20 * 2 ** 20 + 2 ** 19);
    });
    const places = kernels.store(half.own);
    run.chooseTables(u.at, head.outputs, places, kernels.store(terms), count, channels, numbers);
    kernels.release(before);
    return numbers;
  }

  /** Tell the network the symbols of a step, channel by channel, in the order of `tables`. */
  absorb(step: number, symbols: Int32Array, channels: number): void {
    const kernels = this.#kernels;
    const before = kernels.top;
    const half = this.#grid.halves[step % 2]!;
    const stride = padded(channels) * 2;
    const from = { at: kernels.takeZeros(half.total * stride), stride, pixels: half.total };
    const values = kernels.shorts(from.at, (half.total * stride) / 2);
    const count = half.own.length;
    for (let channel = 0; channel < channels; channel++) {
      for (let cell = 0; cell < count; cell++) {
        const magnitude = Math.min(Math.abs(symbols[channel * count + cell]!), 255);
        values[(half.own[cell]! * stride) / 2 + channel] = this.#magnitudes[magnitude]!;
      }
      for (const place of half.others) values[(place * stride) / 2 + channel] = this.#magnitudes[0]!;
    }
    for (const seeing of this.#grid.halves) {
      const { same, other } = this.#layers.absorb[step >> 1]!;
      const layer = seeing.parity === half.parity ? same : other;
      const { row } = this.#grid.plane;
      const offsets = halfOffsets(kernels, layer, row, stride, half.parity, seeing.parity);
      const state = this.#states[seeing.parity]!;
      multiply(kernels, layer, offsets, from, state, seeing.first, seeing.count, true);
    }
    kernels.release(before);
  }

  #activations(half: Half, from: Run, channels: number, start: number): Run & { pixels: number } {
    const to = { at: this.#kernels.take(half.total * channels * 2), stride: channels * 2 };
    this.#kernels.run.activate(
      from.at + start * from.stride,
      to.at + start * to.stride,
      half.count * channels,
    );
    return { ...to, pixels: half.total };
  }
}

/** Gives means. */
export class MeanNetwork {
  readonly #kernels: Kernels;
  readonly #layers: Layers<Layer>;
  /** Channels of its state. */
  readonly channels: number;

  constructor(
    kernels: Kernels,
    arrays: Map<string, Tensor>,
    groups: number[],
    hyperChannels: number,
  ) {
    const make: Make<Layer> = (name, weight, bias, order, chosen) =>
      floatLayer(kernels, name, weight, bias, order, chosen);
    const read = readLayers(arrays, "mean", groups, hyperChannels, CONDITION_CHANNELS, make);
    this.#kernels = kernels;
    this.#layers = read.layers;
    this.channels = read.state;
  }

  begin(grid: Grid): { steps: MeanSteps; prior: Float32Array } {
    const kernels = this.#kernels;
    const { hyper64, to32, hyper32, to16, planes } = this.#layers;
    const small = plane(grid.plane.width / HYPER_CELLS, grid.plane.height / HYPER_CELLS);
    const middle = plane(2 * small.width, 2 * small.height);
    const stride = to16.outputs;
    const full: Run = { at: kernels.takeZeros(grid.plane.total * stride), stride };
    const before = kernels.top;
    const hyper = this.#tensor(hyper64.inputs, small);
    const values = kernels.floats(hyper.at, (small.total * hyper.stride) / 4);
    fillHyper(grid, small, (place, channel, z) => {
      values[(place * hyper.stride) / 4 + channel] = z;
    });
    const a = this.#layer(hyper64, hyper, small, true);
    const b = this.#layer(to32, a, small, true);
    const wide = this.#tensor(to32.outputs / 4, middle);
    this.#shuffle(b, small, wide, middle);
    const c = this.#layer(hyper32, wide, middle, true);
    const d = this.#layer(to16, c, middle, false);
    this.#shuffle(d, middle, full, grid.plane);
    const told = this.#tensor(CONDITION_CHANNELS, grid.plane);
    const inputs = kernels.floats(told.at, (grid.plane.total * told.stride) / 4);
    const conditions = conditionsOfLevels(grid.q);
    for (let y = 0; y < grid.plane.height; y++) {
      for (let x = 0; x < grid.plane.width; x++) {
        const place = ((grid.plane.first + y * grid.plane.row + x) * told.stride) / 4;
        inputs.set(conditions[grid.levels[y * grid.plane.width + x]! + 8]!, place);
      }
    }
    const offsets = storeOffsets(kernels, planes, grid.plane, told.stride);
    convolve(kernels, planes, offsets, told, full, grid.plane.first, grid.plane.run, {
      added: full,
    });
    const prior = new Float32Array(grid.width * grid.height * this.channels);
    const state = kernels.floats(full.at, (grid.plane.total * stride) / 4);
    for (let y = 0, to = 0; y < grid.height; y++) {
      for (let x = 0; x < grid.width; x++) {
        const from = ((grid.plane.first + y * grid.plane.row + x) * stride) / 4;
        for (let channel = 0; channel < this.channels; channel++) {
          const value = state[from + channel]!;
          prior[to++] = Math.max(value, value * Math.fround(SLOPE));
        }
      }
    }
    kernels.release(before);
    const states = halve(kernels, full, grid.halves);
    return { steps: new MeanSteps(kernels, this.#layers, grid, states), prior };
  }

  #tensor(channels: number, { total }: Plane): Run {
    const stride = padded(channels) * 4;
    return { at: this.#kernels.takeZeros(total * stride), stride };
  }

  #layer(layer: Layer, from: Run, plane: Plane, activate: boolean): Run {
    const to = this.#tensor(layer.outputs, plane);
    const offsets = storeOffsets(this.#kernels, layer, plane, from.stride);
    convolve(this.#kernels, layer, offsets, from, to, plane.first, plane.run, { activate });
    clearBorder(this.#kernels, to, plane);
    return to;
  }

  #shuffle(from: Run, small: Plane, to: Run, large: Plane): void {
    this.#kernels.run.shuffle(
      from.at + small.first * from.stride, from.stride, small.row * from.stride,
      small.width, small.height,
      to.at + large.first * to.stride, to.stride, large.row * to.stride,
      2, to.stride,
    );
  }
}

/** One tile's way through the mean network. */
export class MeanSteps {
  readonly #kernels: Kernels;
  readonly #layers: Layers<Layer>;
  readonly #grid: Grid;
  readonly #states: [Run, Run];

  constructor(kernels: Kernels, layers: Layers<Layer>, grid: Grid, states: [Run, Run]) {
    this.#kernels = kernels;
    this.#layers = layers;
    this.#grid = grid;
    this.#states = states;
  }

  /**
   * Latents of a step, and what the next steps know of them.
   *
   * `symbols` lie channel by channel; `latents` has a row for each own cell, in which the step's
   * begin at `at`; `sizes` are those of a step of each level, -8 first.
   */
  take(
    step: number,
    symbols: Int32Array,
    channels: number,
    latents: Float32Array,
    latentChannels: number,
    at: number,
    sizes: Float32Array,
    absorb: boolean,
  ): void {
    const kernels = this.#kernels;
    const before = kernels.top;
    const half = this.#grid.halves[step % 2]!;
    const state = this.#states[step % 2]!;
    const hidden = this.#layers.hidden[step]!;
    const head = this.#layers.heads[step]!;
    const offsets = kernels.store(new Int32Array(1));
    const { first, count } = half;
    const deep: Run = { at: kernels.take(half.total * hidden.outputs * 4), stride: hidden.outputs * 4 };
    const means: Run = { at: kernels.takeZeros(half.total * head.outputs * 4), stride: head.outputs * 4 };
    const active: Run = { at: kernels.take(half.total * state.stride), stride: state.stride };
    kernels.run.leakyRelu(
      state.at + first * state.stride,
      active.at + first * state.stride,
      (count * state.stride) / 4,
      SLOPE,
    );
    convolve(kernels, hidden, offsets, active, deep, first, count, { activate: true });
    convolve(kernels, head, offsets, deep, means, first, count);
    const decoded: Run = { at: kernels.takeZeros(half.total * means.stride), stride: means.stride };
    const wide = means.stride / 4;
    const from = kernels.floats(means.at, half.total * wide);
    const to = kernels.floats(decoded.at, half.total * wide);
    const { levels, plane, width } = this.#grid;
    half.cells.forEach((cell, i) => {
      const level = levels[Math.floor(cell / width) * plane.width + (cell % width)]!;
      const size = sizes[level + 8]!;
      const place = half.own[i]! * wide;
      for (let channel = 0; channel < channels; channel++) {
        const symbol = symbols[channel * half.cells.length + i]!;
        const value = from[place + channel]! + symbol * size;
        to[place + channel] = value;
        latents[cell * latentChannels + at + channel] = value;
      }
    });
    for (const place of half.others) {
      to.set(from.subarray(place * wide, place * wide + channels), place * wide);
    }
    if (absorb) {
      for (const seeing of this.#grid.halves) {
        const { same, other } = this.#layers.absorb[step >> 1]!;
        const layer = seeing.parity === half.parity ? same : other;
        const { row } = plane;
        const seen = halfOffsets(kernels, layer, row, decoded.stride, half.parity, seeing.parity);
        const added = this.#states[seeing.parity]!;
        convolve(kernels, layer, seen, decoded, added, seeing.first, seeing.count, { added });
      }
    }
    kernels.release(before);
  }
}

/** The five planes for each level, -8 first. */
export function conditionsOfLevels(q: number): Float32Array[] {
  return Array.from({ length: 17 }, (_, i) => {
    const p = (q / 64 + i - 8) / 8;
    const t = 2 ** (-2 * p);
    return Float32Array.of(p, p * p, t / 2, 1 / (2 * t), q / 512);
  });
}

function fillHyper(
  grid: Grid,
  small: Plane,
  set: (place: number, channel: number, z: number) => void,
): void {
  const count = small.width * small.height;
  for (let i = 0; i < grid.hyper.length; i++) {
    const cell = i % count;
    const y = Math.floor(cell / small.width);
    set(small.first + y * small.row + (cell % small.width), Math.floor(i / count), grid.hyper[i]!);
  }
}

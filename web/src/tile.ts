// A tile's payload: levels, hyper-latents and latents, in the order of docs/format.md.

import { BitstreamError, ModelError } from "./errors.ts";
import type { Kernels } from "./kernels.ts";
import type { Tensor } from "./model_file.ts";
import { HYPER_CELLS, MAX_HYPER, MeanNetwork, ScaleNetwork, makeGrid } from "./step_networks.ts";
import type { Half } from "./step_networks.ts";

export const CELL_PX = 16;
export const MAX_TILE_PIXELS = 2 ** 22;
export const MAX_TILE_SIDE = 2 ** 14;

const MAX_LEVEL = 8;
const LEVEL_CONTEXTS = 24;
const LEVEL_SYMBOLS = 41;
const HYPER_RATES = 12;
const HYPER_SYMBOLS = 2 * MAX_HYPER + 1;
const TABLES = 64;
const SYMBOLS = 512;
const MAX_SYMBOL = 255;
const ESCAPE = 511;
const MAX_ESCAPE_BITS = 15;
const PROBABILITY = 2 ** 24;

/** What a tile says, and what the syntheses make a picture of. */
export interface Tile {
  /** Own cells. */
  width: number;
  height: number;
  /** -8 to 8, of own cells. */
  levels: Int8Array;
  /** A row of M floats for each cell; after a preview only the first group's. */
  latents: Float32Array;
  /** A row for each cell. */
  prior: Float32Array;
  /**
   * All integers, where they were asked for: levels, hyper-latents and symbols of the grid whose
   * sides are multiples of 4 cells, each channel by channel and row by row.
   */
  integers?: Int32Array;
  /** Bits of each cell's symbols, where they were asked for. */
  bits?: Float32Array;
}

export interface TileWishes {
  /** Stop after the first group of channels. */
  firstGroup?: boolean;
  integers?: boolean;
  bits?: boolean;
}

export class TileDecoder {
  readonly #kernels: Kernels;
  readonly #scale: ScaleNetwork;
  readonly #mean: MeanNetwork;
  readonly groups: number[];
  readonly latentChannels: number;
  readonly #hyperChannels: number;
  readonly #levelTables: number;
  readonly #hyperTables: number;
  readonly #symbolTables: number;
  readonly #costs: Float32Array;

  constructor(kernels: Kernels, arrays: Map<string, Tensor>, decoding: Record<string, unknown>) {
    const { groups, padding_px: padding } = decoding;
    const sizes = Array.isArray(groups) ? (groups as unknown[]) : [];
    if (!sizes.length || !sizes.every((size) => Number.isInteger(size) && Number(size) > 0)) {
      throw new ModelError(`expected groups of channels, found ${JSON.stringify(groups)}`);
    }
    if (padding !== CELL_PX) {
      throw new ModelError(`expected padding_px ${CELL_PX}, found ${JSON.stringify(padding)}`);
    }
    this.groups = sizes as number[];
    this.latentChannels = this.groups.reduce((sum, size) => sum + size, 0);
    this.#kernels = kernels;
    const hyper = tables(arrays, "hyper_tables", HYPER_SYMBOLS);
    const level = tables(arrays, "level_tables", LEVEL_SYMBOLS, LEVEL_CONTEXTS);
    const symbol = tables(arrays, "symbol_tables", SYMBOLS, TABLES);
    this.#hyperChannels = hyper.count / HYPER_RATES;
    if (!Number.isInteger(this.#hyperChannels)) {
      throw new ModelError(`expected hyper_tables for ${HYPER_RATES} rates, found ${hyper.count}`);
    }
    this.#levelTables = kernels.store(level.lefts);
    this.#hyperTables = kernels.store(hyper.lefts);
    this.#symbolTables = kernels.store(symbol.lefts);
    this.#costs = new Float32Array(TABLES * SYMBOLS);
    for (let table = 0; table < TABLES; table++) {
      for (let s = 0; s < SYMBOLS; s++) {
        const at = table * (SYMBOLS + 1) + s;
        const share = symbol.lefts[at + 1]! - symbol.lefts[at]!;
        this.#costs[table * SYMBOLS + s] = -Math.log2(share / PROBABILITY);
      }
    }
    this.#scale = new ScaleNetwork(kernels, arrays, this.groups, this.#hyperChannels);
    this.#mean = new MeanNetwork(kernels, arrays, this.groups, this.#hyperChannels);
  }

  get priorChannels(): number {
    return this.#mean.channels;
  }

  /** A tile of `width` x `height` pixels, at most 2^22 and 2^14 a side. */
  decode(
    payload: Uint8Array,
    width: number,
    height: number,
    q: number,
    wishes: TileWishes = {},
  ): Tile {
    const before = this.#kernels.top;
    try {
      return this.#decode(
        payload,
        Math.ceil(width / CELL_PX),
        Math.ceil(height / CELL_PX),
        q,
        wishes,
      );
    } finally {
      this.#kernels.release(before);
    }
  }

  #decode(payload: Uint8Array, width: number, height: number, q: number, wishes: TileWishes): Tile {
    const kernels = this.#kernels;
    const { run } = kernels;
    if (payload.at(-1) === 0) throw new BitstreamError("damaged: a payload ends in a zero byte");
    const at = kernels.take(payload.length);
    kernels.bytes(at, payload.length).set(payload);
    run.start(at, payload.length);
    const levels = this.#readLevels(width, height);
    const gridWidth = HYPER_CELLS * Math.ceil(width / HYPER_CELLS);
    const gridHeight = HYPER_CELLS * Math.ceil(height / HYPER_CELLS);
    const repeated = new Int8Array(gridWidth * gridHeight);
    for (let y = 0; y < gridHeight; y++) {
      for (let x = 0; x < gridWidth; x++) {
        repeated[y * gridWidth + x] =
          levels[Math.min(y, height - 1) * width + Math.min(x, width - 1)]!;
      }
    }
    const cells = (gridWidth * gridHeight) / HYPER_CELLS ** 2;
    const grid = makeGrid(width, height, repeated, q, this.#readHyper(cells, q));
    const scale = this.#scale.begin(grid);
    const { steps: mean, prior } = this.#mean.begin(grid);
    const count = width * height;
    const gridCount = gridWidth * gridHeight;
    const symbolsFrom = gridCount + grid.hyper.length;
    const tile: Tile = {
      width,
      height,
      levels,
      latents: new Float32Array(count * this.latentChannels),
      prior,
      ...(wishes.integers && {
        integers: new Int32Array(symbolsFrom + gridCount * this.latentChannels),
      }),
      ...(wishes.bits && { bits: new Float32Array(count) }),
    };
    tile.integers?.set(repeated);
    tile.integers?.set(grid.hyper, gridCount);
    const sizes = Float32Array.from({ length: 2 * MAX_LEVEL + 1 }, (_, i) =>
      2 ** (-(q / 64 + i - MAX_LEVEL) / 4),
    );
    const groups = wishes.firstGroup ? this.groups.slice(0, 1) : this.groups;
    let channel = 0;
    groups.forEach((channels, group) => {
      for (const step of [2 * group, 2 * group + 1]) {
        const top = kernels.top;
        const half = grid.halves[step % 2]!;
        const numbers = scale.tables(step, channels);
        const symbols = this.#readSymbols(numbers, half, channels, tile.bits);
        const last = step === 2 * groups.length - 1;
        if (!last) scale.absorb(step, symbols, channels);
        mean.take(
          step, symbols, channels, tile.latents, this.latentChannels, channel, sizes, !last,
        );
        if (tile.integers) {
          const to = tile.integers.subarray(symbolsFrom + channel * gridCount);
          for (let i = 0; i < symbols.length; i++) {
            const cell = half.cells[i % half.cells.length]!;
            const place = Math.floor(cell / width) * gridWidth + (cell % width);
            to[Math.floor(i / half.cells.length) * gridCount + place] = symbols[i]!;
          }
        }
        kernels.release(top);
      }
      channel += channels;
    });
    if (!wishes.firstGroup && !run.finished()) {
      throw new BitstreamError("damaged: a payload has bytes that no symbol needs");
    }
    return tile;
  }

  #check(): void {
    if (!this.#kernels.run.inside()) {
      throw new BitstreamError("damaged: a payload says what no symbol means");
    }
  }

  #readLevels(width: number, height: number): Int8Array {
    const { run } = this.#kernels;
    const levels = new Int8Array(width * height);
    if (!run.evenBit()) return levels;
    const size = 4 * (LEVEL_SYMBOLS + 1);
    const firsts: number[] = [];
    const contexts: number[] = [];
    for (let t = 0; t <= width - 1 + 2 * (height - 1); t++) {
      const top = Math.max(0, Math.ceil((t - width + 1) / 2));
      const bottom = Math.min(height - 1, Math.floor(t / 2));
      firsts.length = contexts.length = 0;
      for (let y = top; y <= bottom; y++) {
        const cell = y * width + t - 2 * y;
        const [prediction, roughness] = neighbourhood(levels, width, cell);
        let context = 0;
        for (const reached of [1, 2, 3, 5, 8]) if (roughness >= reached) context++;
        firsts.push(prediction >> 2);
        contexts.push(4 * context + (prediction & 3));
      }
      const order = Array.from(contexts.keys()).sort((a, b) => contexts[a]! - contexts[b]! || a - b);
      for (const i of order) {
        const symbol = run.symbol(this.#levelTables + contexts[i]! * size, LEVEL_SYMBOLS);
        const level = symbol + firsts[i]! - 20;
        if (level < -MAX_LEVEL || level > MAX_LEVEL) {
          throw new BitstreamError(`damaged: expected levels of -8 to 8, found ${level}`);
        }
        const y = top + i;
        levels[y * width + t - 2 * y] = level;
      }
      this.#check();
    }
    return levels;
  }

  #readHyper(cells: number, q: number): Int8Array {
    const { run } = this.#kernels;
    const rate = Math.min(Math.max((q + 768) >> 7, 0), HYPER_RATES - 1);
    const size = 4 * (HYPER_SYMBOLS + 1);
    const hyper = new Int8Array(this.#hyperChannels * cells);
    for (let i = 0; i < hyper.length; i++) {
      const table = this.#hyperChannels * rate + Math.floor(i / cells);
      hyper[i] = run.symbol(this.#hyperTables + table * size, HYPER_SYMBOLS) - MAX_HYPER;
    }
    this.#check();
    return hyper;
  }

  /** Symbols of a step, channel by channel. */
  #readSymbols(numbers: number, half: Half, channels: number, bits?: Float32Array): Int32Array {
    const kernels = this.#kernels;
    const { run } = kernels;
    const cells = half.own.length;
    const count = cells * channels;
    const order = kernels.take((count + 65) * 4);
    const to = kernels.take(count * 4);
    run.symbolsOfStep(numbers, count, this.#symbolTables, SYMBOLS, order, to);
    this.#check();
    const coded = kernels.integers(to, count);
    if (bits) {
      const tables = kernels.bytes(numbers, count);
      for (let i = 0; i < count; i++) {
        bits[half.cells[i % cells]!]! += this.#costs[tables[i]! * SYMBOLS + coded[i]!]!;
      }
    }
    const symbols = coded.map((symbol) => symbol - MAX_SYMBOL);
    const large: number[] = [];
    for (let i = 0; i < count; i++) if (coded[i] === ESCAPE) large.push(i);
    if (large.length) this.#readLarge(symbols, large);
    return symbols;
  }

  /** Symbols beyond 255 in magnitude: signs, lengths in unary, bits below the highest. */
  #readLarge(symbols: Int32Array, places: number[]): void {
    const { run } = this.#kernels;
    const negative = places.map(() => run.evenBit());
    const lengths = places.map(() => 0);
    for (let open = Array.from(places.keys()); open.length; ) {
      open = open.filter((i) => run.evenBit() && ++lengths[i]!);
      this.#check();
      if (open.some((i) => lengths[i]! > MAX_ESCAPE_BITS)) {
        throw new BitstreamError("damaged: a symbol is too large");
      }
    }
    const excess = lengths.map((length) => 2 ** length);
    for (let bit = MAX_ESCAPE_BITS - 1; bit >= 0; bit--) {
      lengths.forEach((length, i) => {
        if (length > bit && run.evenBit()) excess[i]! += 2 ** bit;
      });
    }
    this.#check();
    places.forEach((place, i) => {
      const magnitude = MAX_SYMBOL + excess[i]!;
      symbols[place] = negative[i] ? -magnitude : magnitude;
    });
  }
}

/** P and R of docs/format.md. */
function neighbourhood(levels: Int8Array, width: number, cell: number): [number, number] {
  const x = cell % width;
  const above = cell >= width;
  if (cell === 0) return [0, 0];
  let west: number, north: number, northWest: number, northEast: number;
  if (above) {
    north = levels[cell - width]!;
    west = x > 0 ? levels[cell - 1]! : north;
    northWest = x > 0 ? levels[cell - width - 1]! : north;
    northEast = x < width - 1 ? levels[cell - width + 1]! : north;
  } else {
    west = levels[cell - 1]!;
    north = northWest = northEast = west;
  }
  return [
    2 * west + 2 * north + northEast - northWest,
    Math.abs(west - northWest) + Math.abs(north - northWest) + Math.abs(north - northEast),
  ];
}

/** Frequencies as the limits that the arithmetic decoder compares with. */
function tables(
  arrays: Map<string, Tensor>,
  name: string,
  symbols: number,
  expected?: number,
): { lefts: Uint32Array; count: number } {
  const found = arrays.get(name);
  const [count = 0, size] = found?.shape ?? [];
  if (!found || found.shape.length !== 2 || size !== symbols || count !== (expected ?? count)) {
    throw new ModelError(
      `${name}: expected ${expected ?? "any"} x ${symbols}, found ${found?.shape.join(" x ")}`,
    );
  }
  const lefts = new Uint32Array(count * (symbols + 1));
  for (let table = 0; table < count; table++) {
    let sum = 0;
    for (let symbol = 0; symbol < symbols; symbol++) {
      const frequency = Number(found.values[table * symbols + symbol]);
      if (frequency < 0) throw new ModelError(`${name}: expected frequencies, found ${frequency}`);
      lefts[table * (symbols + 1) + symbol] =
        Math.floor((sum * (PROBABILITY - symbols)) / 65536) + symbol;
      sum += frequency;
    }
    if (sum !== 65536) throw new ModelError(`${name}: expected a sum of 65536, found ${sum}`);
    lefts[table * (symbols + 1) + symbols] = PROBABILITY;
  }
  return { lefts, count };
}

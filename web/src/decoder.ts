// A file as pixels: which parts of it are read, in which order, by which of a model's networks.

import {
  DEFAULT_LIMITS,
  Mode,
  NO_MODEL,
  hasAlpha,
  isGrey,
  readHeader,
  readSection,
  tileRectangle,
} from "./container.ts";
import type { Header, Limits } from "./container.ts";
import { BitstreamError, ModelError } from "./errors.ts";
import { ExactLayer } from "./exact_layer.ts";
import type { Kernels } from "./kernels.ts";
import type { ModelFile } from "./model_file.ts";
import { readAlpha } from "./side_sections.ts";
import { CONDITION_CHANNELS, conditionsOfLevels } from "./step_networks.ts";
import { Synthesis } from "./synthesis.ts";
import type { CellRows } from "./synthesis.ts";
import { CELL_PX, MAX_TILE_PIXELS, MAX_TILE_SIDE, TileDecoder } from "./tile.ts";
import type { Tile } from "./tile.ts";
import { MAX_WHOLE_PIXELS, MAX_WHOLE_SIDE, checkGrey, decodeWholeTile } from "./whole.ts";
import type { DecodeWebp } from "./whole.ts";

export const FAMILY = "flagship";

/** RGBA of 8 bits, not premultiplied, row by row. */
export interface Pixels {
  width: number;
  height: number;
  data: Uint8ClampedArray<ArrayBuffer>;
}

export interface Rectangle {
  left: number;
  top: number;
  width: number;
  height: number;
}

export type Graphs = "fast" | "synthesis" | "preview";

/** Bytes of work of a synthesis; larger pictures are made in several windows. */
const WINDOW_BYTES = 128 * 2 ** 20;
const MIN_WINDOW_CELLS = 8;

/** So many pixels a side are one of a preview. */
const PREVIEW_PX = 8;

/** A model of the `flagship` family, ready to decode. */
export class Model {
  readonly identity: string;
  readonly name: string;
  readonly kernels: Kernels;
  readonly tiles: TileDecoder;
  readonly #graphs: Map<string, Uint8Array>;
  readonly #syntheses = new Map<string, Synthesis>();

  constructor(kernels: Kernels, file: ModelFile) {
    const { family, identity, name, decoding } = file.manifest;
    if (family !== FAMILY) {
      throw new ModelError(`expected a model of the family ${FAMILY}, found one of ${family}`);
    }
    this.identity = identity;
    this.name = name;
    this.kernels = kernels;
    this.tiles = new TileDecoder(kernels, file.arrays, decoding);
    this.#graphs = file.graphs;
  }

  /** Networks of another file of the same model. */
  addGraphs(file: ModelFile): void {
    if (file.manifest.identity !== this.identity) {
      throw new ModelError(
        `expected a part of the model ${this.identity}, found one of ${file.manifest.identity}`,
      );
    }
    for (const [name, graph] of file.graphs) this.#graphs.set(name, graph);
  }

  has(name: Graphs): boolean {
    return this.#graphs.has(name);
  }

  /** Ready to run; below everything that is given back after a picture. */
  synthesis(name: Graphs): Synthesis {
    let found = this.#syntheses.get(name);
    if (!found) {
      const graph = this.#graphs.get(name);
      if (!graph) throw new ModelError(`expected ${name}.onnx in the model, found none`);
      const latents = name === "preview" ? this.tiles.groups[0]! : this.tiles.latentChannels;
      found = new Synthesis(this.kernels, graph, [
        latents,
        this.tiles.priorChannels,
        CONDITION_CHANNELS,
      ]);
      this.#syntheses.set(name, found);
    }
    return found;
  }
}

/**
 * Header of a file, after a look at what nothing of its size need be made for.
 *
 * A model refuses tiles that its family cannot have written, and so does the coding without one.
 */
export function readCheckedHeader(data: Uint8Array, limits = DEFAULT_LIMITS): Header {
  const header = readHeader(data, limits);
  const whole = header.identity === NO_MODEL;
  const maxPixels = whole ? MAX_WHOLE_PIXELS : MAX_TILE_PIXELS;
  const maxSide = whole ? MAX_WHOLE_SIDE : MAX_TILE_SIDE;
  const { width, height } = tileRectangle(header, 0);
  if (width * height > maxPixels || Math.max(width, height) > maxSide) {
    throw new BitstreamError(
      `expected tiles of at most ${maxPixels} pixels and ${maxSide} a side, ` +
        `found ${width} x ${height}`,
    );
  }
  return header;
}

export interface DecodeWishes {
  limits?: Limits;
  /** The part of the picture that is wanted, in pixels. */
  region?: Rectangle;
  /** Which synthesis; "fast" where the model has one, else the other. */
  graph?: "fast" | "synthesis";
  /** For files whose text and graphics are exact, which need a decoder of WebP. */
  decodeWebp?: DecodeWebp;
}

/** The picture, or a region of it, by a model. */
export async function decodePixels(
  data: Uint8Array,
  model: Model,
  wishes: DecodeWishes = {},
): Promise<Pixels> {
  const header = checkedHeader(data, model, wishes.limits);
  const region = checkedRegion(wishes.region, header);
  // Transparency and the layer first: they are quickly found to be damaged.
  const alpha = hasAlpha(header.mode) ? await readAlpha(data, header) : undefined;
  const layer = new ExactLayer(data, header, wishes.decodeWebp);
  const graph = wishes.graph ?? (model.has("fast") ? "fast" : "synthesis");
  const pixels = render(data, header, model, model.synthesis(graph), region, false);
  finishColours(pixels, header.mode);
  await layer.putOver(pixels, region);
  if (alpha) putAlpha(pixels, alpha, region, header.width);
  return pixels;
}

/** The picture, or a region of it, of a file that needs no model. */
export async function decodeWholePixels(
  data: Uint8Array,
  decodeWebp: DecodeWebp,
  wishes: DecodeWishes = {},
): Promise<Pixels> {
  const header = readCheckedHeader(data, wishes.limits);
  if (header.identity !== NO_MODEL) {
    throw new ModelError(`expected a file without a model, found one of ${header.identity}`);
  }
  const region = checkedRegion(wishes.region, header);
  const alpha = await readAlpha(data, header);
  let pixels: Pixels | undefined;
  const out = {
    left: region.left,
    top: region.top,
    right: region.left + region.width,
    bottom: region.top + region.height,
  };
  for (let index = 0; index < header.tiles.length; index++) {
    const tile = tileRectangle(header, index);
    const misses =
      tile.left >= out.right ||
      tile.top >= out.bottom ||
      tile.left + tile.width <= out.left ||
      tile.top + tile.height <= out.top;
    if (misses) continue;
    const made = await decodeWholeTile(data, header, index, !!alpha, decodeWebp);
    if (isGrey(header.mode)) checkGrey(made);
    pixels ??= blank(region.width, region.height);
    copyPixels(made, tile, pixels, out);
  }
  if (alpha) putAlpha(pixels!, alpha, region, header.width);
  return pixels!;
}

/** The picture at 1/8 of its size, sides rounded up; without transparency. */
export async function decodePreview(
  data: Uint8Array,
  model: Model,
  wishes: { limits?: Limits | undefined; decodeWebp?: DecodeWebp } = {},
): Promise<Pixels> {
  const header = checkedHeader(data, model, wishes.limits);
  const layer = new ExactLayer(data, header, wishes.decodeWebp);
  const region = { left: 0, top: 0, width: header.width, height: header.height };
  const pixels = render(data, header, model, model.synthesis("preview"), region, true);
  finishColours(pixels, header.mode);
  await layer.putOver(pixels, region, PREVIEW_PX);
  return pixels;
}

/** All integers of each tile, see `Tile`: the same on every machine. */
export function decodeIntegers(data: Uint8Array, model: Model): Int32Array[] {
  const header = checkedHeader(data, model);
  return header.tiles.map((_, i) => decodeTile(data, header, model, i, { integers: true }).integers!);
}

/** Bits and levels of each cell, of the whole picture. */
export interface CellMap {
  width: number;
  height: number;
  bits: Float32Array;
  levels: Int8Array;
}

export function decodeMap(data: Uint8Array, model: Model, limits?: Limits): CellMap {
  const header = checkedHeader(data, model, limits);
  const width = Math.ceil(header.width / CELL_PX);
  const height = Math.ceil(header.height / CELL_PX);
  const map: CellMap = {
    width,
    height,
    bits: new Float32Array(width * height),
    levels: new Int8Array(width * height),
  };
  header.tiles.forEach((_, i) => {
    const area = cellsOf(header, i);
    const tile = decodeTile(data, header, model, i, { bits: true });
    for (let y = 0; y < area.height; y++) {
      const from = y * area.width;
      const to = (area.top + y) * width + area.left;
      map.bits.set(tile.bits!.subarray(from, from + area.width), to);
      map.levels.set(tile.levels.subarray(from, from + area.width), to);
    }
  });
  return map;
}

function checkedHeader(data: Uint8Array, model: Model, limits?: Limits): Header {
  const header = readCheckedHeader(data, limits);
  if (header.identity !== model.identity) {
    throw new ModelError(`expected the model ${header.identity}, found ${model.identity}`);
  }
  return header;
}

function checkedRegion(region: Rectangle | undefined, header: Header): Rectangle {
  if (!region) return { left: 0, top: 0, width: header.width, height: header.height };
  const { left, top, width, height } = region;
  const whole = [left, top, width, height].every(Number.isInteger);
  const inside = left >= 0 && top >= 0 && left + width <= header.width;
  if (!whole || !inside || top + height > header.height || width < 1 || height < 1) {
    throw new RangeError(
      `expected a region inside ${header.width} x ${header.height}, ` +
        `found ${width} x ${height} at ${left}, ${top}`,
    );
  }
  return region;
}

function decodeTile(
  data: Uint8Array,
  header: Header,
  model: Model,
  index: number,
  wishes: { firstGroup?: boolean; integers?: boolean; bits?: boolean } = {},
): Tile {
  const { width, height } = tileRectangle(header, index);
  const payload = readSection(data, header.tiles[index]!);
  return model.tiles.decode(payload, width, height, header.q, wishes);
}

/** A tile's rectangle in cells. */
function cellsOf(header: Header, index: number): Rectangle {
  const { left, top, width, height } = tileRectangle(header, index);
  return {
    left: left / CELL_PX,
    top: top / CELL_PX,
    width: Math.ceil(width / CELL_PX),
    height: Math.ceil(height / CELL_PX),
  };
}

/**
 * Runs a synthesis over a region in windows of cells, each with the cells around it that it sees.
 *
 * Tiles are decoded when a window first needs them and dropped behind the last one that does.
 */
function render(
  data: Uint8Array,
  header: Header,
  model: Model,
  synthesis: Synthesis,
  region: Rectangle,
  firstGroup: boolean,
): Pixels {
  const scale = synthesis.zoom / CELL_PX;
  const out = {
    left: Math.floor(region.left * scale),
    top: Math.floor(region.top * scale),
    right: Math.ceil((region.left + region.width) * scale),
    bottom: Math.ceil((region.top + region.height) * scale),
  };
  // Made when the first window is there: a damaged file takes no memory of its picture's size.
  let pixels: Pixels | undefined;
  const columns = Math.ceil(header.width / CELL_PX);
  const lines = Math.ceil(header.height / CELL_PX);
  const cells = {
    left: Math.floor(region.left / CELL_PX),
    top: Math.floor(region.top / CELL_PX),
    right: Math.ceil((region.left + region.width) / CELL_PX),
    bottom: Math.ceil((region.top + region.height) / CELL_PX),
  };
  const { reach, zoom } = synthesis;
  const [windowColumns, windowLines] = windowSize(
    cells.right - cells.left,
    cells.bottom - cells.top,
    reach,
    WINDOW_BYTES / synthesis.bytesPerCell,
  );
  const conditions = conditionsOfLevels(header.q);
  const channels = firstGroup ? model.tiles.groups[0]! : model.tiles.latentChannels;
  const tiles = new Map<number, Tile>();
  const tileCells = header.tileSide ? header.tileSide / CELL_PX : Math.max(columns, lines);
  const tileColumns = Math.ceil(columns / tileCells);
  for (let top = cells.top; top < cells.bottom; top += windowLines) {
    const bottom = Math.min(top + windowLines, cells.bottom);
    for (let left = cells.left; left < cells.right; left += windowColumns) {
      const right = Math.min(left + windowColumns, cells.right);
      const seen = {
        left: Math.max(left - reach, 0),
        top: Math.max(top - reach, 0),
        right: Math.min(right + reach, columns),
        bottom: Math.min(bottom + reach, lines),
      };
      const width = seen.right - seen.left;
      const height = seen.bottom - seen.top;
      const rows = [channels, model.tiles.priorChannels, CONDITION_CHANNELS].map(
        (size): CellRows => ({ channels: size, values: new Float32Array(size * width * height) }),
      );
      for (let line = Math.floor(seen.top / tileCells); line * tileCells < seen.bottom; line++) {
        for (let column = Math.floor(seen.left / tileCells); column * tileCells < seen.right; column++) {
          const index = line * tileColumns + column;
          let tile = tiles.get(index);
          if (!tile) tiles.set(index, (tile = decodeTile(data, header, model, index, { firstGroup })));
          copyCells(tile, cellsOf(header, index), seen, rows, model.tiles.latentChannels, conditions);
        }
      }
      const inner = {
        left: left - seen.left,
        top: top - seen.top,
        width: right - left,
        height: bottom - top,
      };
      const made = synthesis.render(rows, width, height, inner);
      pixels ??= blank(out.right - out.left, out.bottom - out.top);
      copyPixels(made, { left: left * zoom, top: top * zoom, width: inner.width * zoom }, pixels, out);
    }
    for (const index of tiles.keys()) {
      const end = (Math.floor(index / tileColumns) + 1) * tileCells;
      if (end <= bottom - reach) tiles.delete(index);
    }
  }
  return pixels!;
}

/**
 * Columns and lines of a window's inner part, with the least work around it.
 *
 * All columns or so many that windows are square, and as many lines as `room` cells allow.
 */
function windowSize(columns: number, lines: number, reach: number, room: number): [number, number] {
  const inner = (cells: number): number => Math.max(cells - 2 * reach, MIN_WINDOW_CELLS);
  const square = Math.min(columns, inner(Math.floor(Math.sqrt(room))));
  const candidates = [columns, square].map((width): [number, number] => [
    width,
    Math.min(lines, inner(Math.floor(room / (width + 2 * reach)))),
  ]);
  const waste = ([width, height]: [number, number]): number =>
    ((width + 2 * reach) * (height + 2 * reach)) / (width * height);
  const [wide, narrow] = candidates as [[number, number], [number, number]];
  const fits = (wide[0] + 2 * reach) * (wide[1] + 2 * reach) <= 1.5 * room;
  return fits && waste(wide) <= waste(narrow) ? wide : narrow;
}

function blank(width: number, height: number): Pixels {
  return { width, height, data: new Uint8ClampedArray(width * height * 4) };
}

/** A tile's cells as far as a window sees them. */
function copyCells(
  tile: Tile,
  area: Rectangle,
  seen: { left: number; top: number; right: number; bottom: number },
  rows: CellRows[],
  latentChannels: number,
  conditions: Float32Array[],
): void {
  const [latents, prior, condition] = rows as [CellRows, CellRows, CellRows];
  const width = seen.right - seen.left;
  const left = Math.max(area.left, seen.left);
  const right = Math.min(area.left + area.width, seen.right);
  const bottom = Math.min(area.top + area.height, seen.bottom);
  for (let y = Math.max(area.top, seen.top); y < bottom; y++) {
    for (let x = left; x < right; x++) {
      const from = (y - area.top) * area.width + x - area.left;
      const to = (y - seen.top) * width + x - seen.left;
      const at = from * latentChannels;
      latents.values.set(tile.latents.subarray(at, at + latents.channels), to * latents.channels);
      const told = tile.prior.subarray(from * prior.channels, (from + 1) * prior.channels);
      prior.values.set(told, to * prior.channels);
      condition.values.set(conditions[tile.levels[from]! + 8]!, to * condition.channels);
    }
  }
}

/** What a window made, as far as it lies inside the region. */
function copyPixels(
  made: Uint8Array | Uint8ClampedArray,
  window: { left: number; top: number; width: number },
  pixels: Pixels,
  out: { left: number; top: number; right: number; bottom: number },
): void {
  const height = made.length / (4 * window.width);
  const left = Math.max(window.left, out.left);
  const right = Math.min(window.left + window.width, out.right);
  const bottom = Math.min(window.top + height, out.bottom);
  for (let y = Math.max(window.top, out.top); y < bottom; y++) {
    const from = ((y - window.top) * window.width + left - window.left) * 4;
    const to = ((y - out.top) * pixels.width + left - out.left) * 4;
    pixels.data.set(made.subarray(from, from + (right - left) * 4), to);
  }
}

function finishColours({ data }: Pixels, mode: Mode): void {
  if (!isGrey(mode)) return;
  for (let i = 0; i < data.length; i += 4) {
    const grey = Math.round(0.299 * data[i]! + 0.587 * data[i + 1]! + 0.114 * data[i + 2]!);
    data[i] = data[i + 1] = data[i + 2] = grey;
  }
}

function putAlpha(
  { data, width, height }: Pixels,
  alpha: Uint8Array,
  region: Rectangle,
  pictureWidth: number,
): void {
  for (let y = 0; y < height; y++) {
    const from = (region.top + y) * pictureWidth + region.left;
    for (let x = 0; x < width; x++) data[(y * width + x) * 4 + 3] = alpha[from + x]!;
  }
}

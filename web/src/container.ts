// The container of docs/format.md: header, section table, checksums. Knows no model.

import { BitstreamError } from "./errors.ts";

export enum Mode {
  RGB,
  L,
  RGBA,
  LA,
  NEUTRAL_RGB,
  NEUTRAL_RGBA,
}

export enum Kind {
  TILE,
  ALPHA,
  ICC,
  EXIF,
  XMP,
  THUMBNAIL,
  WHOLE,
  /** One of another version of this program; only its checksum counts. */
  UNKNOWN,
  EXACT,
}

/** Kinds from here on are told by a number of their own in the section table. */
const FIRST_LONG_KIND = 8;

/** What a reader puts up with. */
export interface Limits {
  maxPixels: number;
  maxSections: number;
  /** Of one section of metadata, inflated. */
  maxMetadataBytes: number;
}

export const DEFAULT_LIMITS: Limits = {
  maxPixels: 178_956_970,
  maxSections: 131_072,
  maxMetadataBytes: 16 * 1024 * 1024,
};

/** A section's body in the file. */
export interface Section {
  kind: number;
  offset: number;
  length: number;
}

export interface Header {
  /** 16 hexadecimal digits; NO_MODEL for a file that holds samples. */
  identity: string;
  width: number;
  height: number;
  mode: Mode;
  /** Side of a tile in pixels, or 0 for one tile of any size. */
  tileSide: number;
  /** In 1/64 quarter octaves; without a model how many colours are left, 0 for all. */
  q: number;
  /** In the order of the file; those that are no tile come first. */
  sections: Section[];
  tiles: Section[];
}

/** The identity of files that need no model. */
export const NO_MODEL = "0".repeat(16);

const MAGIC = [0xc7, 0x77, 0x69, 0x63, 0x0d, 0x0a];
const VERSION = 1;
const IDENTITY_BYTES = 8;
const MAX_SIDE = 2 ** 31 - 1;
const MAX_Q = 4096;
const CRC32_BYTES = 4;
const MAX_VARINT_BYTES = 8;

export function isGrey(mode: Mode): boolean {
  return mode !== Mode.RGB && mode !== Mode.RGBA;
}

export function hasAlpha(mode: Mode): boolean {
  return mode === Mode.RGBA || mode === Mode.LA || mode === Mode.NEUTRAL_RGBA;
}

/**
 * Header and section table, checked.
 *
 * `data` is a whole file; a section that lies outside it is an error, and so is what follows the last.
 */
export function readHeader(data: Uint8Array, limits: Limits = DEFAULT_LIMITS): Header {
  const reader = new Reader(data);
  for (const expected of MAGIC) {
    if (reader.byte() !== expected) throw new BitstreamError("expected a .cwic file, found another");
  }
  const version = reader.byte();
  if (version !== VERSION) {
    throw new BitstreamError(`expected version ${VERSION} of the format, found ${version}`);
  }
  const identity = hex(reader.bytes(IDENTITY_BYTES));
  const width = reader.varint("width");
  const height = reader.varint("height");
  for (const side of [width, height]) {
    if (side < 1 || side > MAX_SIDE) {
      throw new BitstreamError(`expected sides of 1 to ${MAX_SIDE} px, found ${side}`);
    }
  }
  if (width * height > limits.maxPixels) {
    throw new BitstreamError(
      `expected at most ${limits.maxPixels} pixels, found ${width} x ${height}`,
    );
  }
  const layout = reader.byte();
  const mode = layout & 15;
  if (mode > Mode.NEUTRAL_RGBA) throw new BitstreamError(`expected a mode of 0 to 5, found ${mode}`);
  const exponent = layout >> 4;
  if (exponent > 10) {
    throw new BitstreamError(`expected a tile exponent of 0 to 10, found ${exponent}`);
  }
  const tileSide = exponent === 0 ? 0 : 2 ** (exponent + 5);
  const zigzag = reader.varint("q");
  const q = zigzag % 2 === 0 ? zigzag / 2 : -(zigzag + 1) / 2;
  if (Math.abs(q) > MAX_Q) {
    throw new BitstreamError(`expected q of ${-MAX_Q} to ${MAX_Q}, found ${q}`);
  }
  const whole = identity === NO_MODEL;
  if (whole && q < 0) {
    throw new BitstreamError(`expected q of 0 to ${MAX_Q} without a model, found ${q}`);
  }
  const tileKind = whole ? Kind.WHOLE : Kind.TILE;
  const tileCount =
    tileSide === 0 ? 1 : Math.ceil(width / tileSide) * Math.ceil(height / tileSide);
  if (tileCount > limits.maxSections) {
    throw new BitstreamError(
      `expected at most ${limits.maxSections} sections, found ${tileCount} tiles`,
    );
  }
  const entries: { kind: number; length: number }[] = [];
  const seen = new Set<number>();
  for (let tiles = 0; tiles < tileCount; ) {
    if (entries.length === limits.maxSections) {
      throw new BitstreamError(`expected at most ${limits.maxSections} sections, found more`);
    }
    const entry = reader.varint("section");
    let kind = entry % 8;
    if (kind === Kind.UNKNOWN) {
      const found = reader.varint("section") + FIRST_LONG_KIND;
      kind = found === Kind.EXACT ? Kind.EXACT : Kind.UNKNOWN;
    }
    entries.push({ kind, length: Math.floor(entry / 8) });
    if (kind === tileKind) {
      tiles++;
      continue;
    }
    if (tiles > 0 || kind === Kind.TILE || kind === Kind.WHOLE) {
      throw new BitstreamError(
        `expected sections ${Kind[tileKind]} alone at the end, found kind ${kind}`,
      );
    }
    if (kind !== Kind.UNKNOWN && seen.has(kind)) {
      throw new BitstreamError(`expected one section ${Kind[kind]}, found two`);
    }
    seen.add(kind);
  }
  if (seen.has(Kind.ALPHA) !== hasAlpha(mode) && !(whole && hasAlpha(mode))) {
    throw new BitstreamError(
      `expected ${hasAlpha(mode) ? "an" : "no"} alpha plane in mode ${mode}, found ` +
        `${seen.has(Kind.ALPHA) ? "one" : "none"}`,
    );
  }
  if (whole && seen.has(Kind.EXACT)) {
    throw new BitstreamError("expected no section EXACT without a model, found one");
  }
  const headerEnd = reader.position;
  const stated = reader.byte() * 256 + reader.byte();
  if (crc16(data.subarray(0, headerEnd)) !== stated) {
    throw new BitstreamError("damaged: the header's checksum is another");
  }
  let offset = reader.position;
  const sections = entries.map(({ kind, length }) => {
    const section = { kind, offset, length };
    offset += length + CRC32_BYTES;
    return section;
  });
  if (offset !== data.length) {
    throw new BitstreamError(`damaged: expected ${offset} bytes, found ${data.length}`);
  }
  const tiles = sections.filter(({ kind }) => kind === tileKind);
  return { identity, width, height, mode, tileSide, q, sections, tiles };
}

/** A section's body, after its checksum was compared. */
export function readSection(data: Uint8Array, { kind, offset, length }: Section): Uint8Array {
  const body = data.subarray(offset, offset + length);
  const view = new DataView(data.buffer, data.byteOffset + offset + length, CRC32_BYTES);
  if (crc32(body) !== view.getUint32(0, true)) {
    throw new BitstreamError(`damaged: the checksum of a section of kind ${kind} is another`);
  }
  return body;
}

/** The rectangle of a tile, in pixels. */
export function tileRectangle(
  header: Header,
  index: number,
): { left: number; top: number; width: number; height: number } {
  const { width, height, tileSide } = header;
  if (tileSide === 0) return { left: 0, top: 0, width, height };
  const columns = Math.ceil(width / tileSide);
  const left = (index % columns) * tileSide;
  const top = Math.floor(index / columns) * tileSide;
  return {
    left,
    top,
    width: Math.min(tileSide, width - left),
    height: Math.min(tileSide, height - top),
  };
}

export function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** CRC-CCITT: polynomial 0x1021, from 0xFFFF, not reflected. */
export function crc16(data: Uint8Array): number {
  let crc = 0xffff;
  for (const byte of data) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) crc = ((crc << 1) ^ (crc & 0x8000 ? 0x1021 : 0)) & 0xffff;
  }
  return crc;
}

const CRC32_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  return crc >>> 0;
});

/** That of zlib and PNG. */
export function crc32(data: Uint8Array, start = 0): number {
  let crc = ~start;
  for (let i = 0; i < data.length; i++) {
    crc = CRC32_TABLE[(crc ^ data[i]!) & 255]! ^ (crc >>> 8);
  }
  return ~crc >>> 0;
}

class Reader {
  position = 0;
  readonly data: Uint8Array;

  constructor(data: Uint8Array) {
    this.data = data;
  }

  byte(): number {
    if (this.position >= this.data.length) {
      throw new BitstreamError("damaged: expected more of the header, found the end");
    }
    return this.data[this.position++]!;
  }

  bytes(count: number): Uint8Array {
    return Uint8Array.from({ length: count }, () => this.byte());
  }

  /** Numbers beyond 2^53 are rounded: nothing in a file is that long. */
  varint(name: string): number {
    let value = 0;
    for (let place = 0; place < MAX_VARINT_BYTES; place++) {
      const byte = this.byte();
      value += (byte & 127) * 2 ** (7 * place);
      if (byte < 128) {
        if (byte === 0 && place > 0) {
          throw new BitstreamError(`damaged: ${name}: expected a number in its shortest form`);
        }
        return value;
      }
    }
    throw new BitstreamError(`damaged: ${name}: expected at most ${MAX_VARINT_BYTES} bytes`);
  }
}

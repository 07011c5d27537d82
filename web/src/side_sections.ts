// What stands beside the tiles: transparency and metadata.

import { BitstreamError } from "./errors.ts";
import { DEFAULT_LIMITS, Kind, readSection } from "./container.ts";
import type { Header, Limits } from "./container.ts";
import { inflate } from "./inflate.ts";

/** Bytes as they are in the file, inflated. */
export interface Metadata {
  icc?: Uint8Array;
  exif?: Uint8Array;
  xmp?: Uint8Array;
  /** A small picture in a common file format. */
  thumbnail?: Uint8Array;
}

export async function readMetadata(
  data: Uint8Array,
  header: Header,
  limits: Limits = DEFAULT_LIMITS,
): Promise<Metadata> {
  const found: Metadata = {};
  for (const section of header.sections) {
    if ([Kind.TILE, Kind.WHOLE, Kind.ALPHA, Kind.EXACT].includes(section.kind)) continue;
    const body = readSection(data, section);
    const name = ({ [Kind.ICC]: "icc", [Kind.EXIF]: "exif", [Kind.XMP]: "xmp" } as const)[
      section.kind as Kind.ICC
    ];
    if (name) found[name] = await inflated(body, limits.maxMetadataBytes, name);
    if (section.kind === Kind.THUMBNAIL) found.thumbnail = body;
  }
  return found;
}

/** Width x height samples, 0 transparent to 255 opaque; undefined for a picture without. */
export async function readAlpha(data: Uint8Array, header: Header): Promise<Uint8Array | undefined> {
  const section = header.sections.find(({ kind }) => kind === Kind.ALPHA);
  if (!section) return undefined;
  const body = readSection(data, section);
  const count = header.width * header.height;
  const coding = body[0];
  if (coding === undefined || coding > 4 || (coding === 4 && body.length !== 2)) {
    throw new BitstreamError(
      `damaged: alpha: expected a coding of 0 to 4, found ${coding} in ${body.length} bytes`,
    );
  }
  if (coding === 4) return new Uint8Array(count).fill(body[1]!);
  const samples = await inflated(body.subarray(1), count, "alpha");
  if (samples.length !== count) {
    throw new BitstreamError(`damaged: alpha: expected ${count} samples, found ${samples.length}`);
  }
  const { width } = header;
  if (coding & 2) {
    for (let i = width; i < count; i++) samples[i]! += samples[i - width]!;
  }
  if (coding & 1) {
    for (let i = 0; i < count; i++) if (i % width > 0) samples[i]! += samples[i - 1]!;
  }
  return samples;
}

async function inflated(body: Uint8Array, maxBytes: number, name: string): Promise<Uint8Array> {
  try {
    return await inflate(body, maxBytes);
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    throw new BitstreamError(`damaged: ${name}: expected a zlib stream, found: ${text}`);
  }
}

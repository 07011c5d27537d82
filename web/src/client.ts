// The doors of a page: functions whose work a worker does.

import { BitstreamError, CodecError, ModelError } from "./errors.ts";
import type { Limits } from "./container.ts";
import type { CellMap, Pixels, Rectangle } from "./decoder.ts";
import type { FileInfo, Reply, Request } from "./worker.ts";

export interface DecodeOptions {
  /** The part of the picture that is wanted, in pixels. */
  region?: Rectangle;
  /** The model's best synthesis in place of its quickest, which is fetched first. */
  full?: boolean;
  limits?: Limits;
  /** Called with the picture at 1/8 of its size as soon as that is there. */
  onPreview?: (preview: ImageData) => void;
}

// `import.meta.url` is where the program was loaded from.
let models = new URL("models/", import.meta.url).href;
let workerUrl = new URL("cwic-worker.js", import.meta.url).href;
let maxWorkers = 1;
let lastId = 0;

/** A worker, and who waits for its answers. */
interface Pooled {
  worker: Worker;
  waiting: Map<number, (reply: Reply) => void>;
}

let pool: Pooled[] = [];

export interface Settings {
  /** The folder of `cwic models --web`, if it is not `models/` beside this program. */
  models?: string | URL;
  /** The worker's script, if it is not beside this program. */
  worker?: string | URL;
  /** Pictures that are decoded at the same time, 1 unless said; each needs a model in memory. */
  workers?: number;
}

/** Before the first picture. */
export function configure(settings: Settings): void {
  const base = document.baseURI;
  if (settings.models) models = new URL(String(settings.models).replace(/\/?$/, "/"), base).href;
  if (settings.worker) workerUrl = new URL(settings.worker, base).href;
  if (settings.workers) maxWorkers = Math.max(1, Math.floor(settings.workers));
}

/** A file as pixels. Throws a CodecError, and nothing else, on whatever bytes. */
export async function decode(
  data: ArrayBuffer | Uint8Array,
  options: DecodeOptions = {},
): Promise<ImageData> {
  const { pixels } = await decodeWithProfile(data, options);
  return pixels;
}

/** A picture and what ImageData cannot hold. */
export interface Decoded {
  pixels: ImageData;
  /** A colour profile. */
  icc?: Uint8Array;
  /** Whether `full` would give a better picture, or has. */
  hasFull: boolean;
}

/** The same with the picture's colour profile. */
export async function decodeWithProfile(
  data: ArrayBuffer | Uint8Array,
  { onPreview, ...options }: DecodeOptions = {},
): Promise<Decoded> {
  const reply = await ask("decode", data, { ...options, preview: !!onPreview }, ({ preview }) => {
    if (preview) onPreview?.(imageData(preview));
  });
  return {
    pixels: imageData(reply.pixels!),
    hasFull: !!reply.hasFull,
    ...(reply.icc && { icc: reply.icc }),
  };
}

export interface PngOptions extends Omit<DecodeOptions, "onPreview"> {
  /** A file that is large and soon there: to be shown, not to be kept. */
  quick?: boolean;
}

/** A file as a PNG file, with its metadata. */
export async function decodeToPng(
  data: ArrayBuffer | Uint8Array,
  options: PngOptions = {},
): Promise<Blob> {
  const { png } = await ask("png", data, options);
  return new Blob([png!], { type: "image/png" });
}

/** Bits and levels of each cell of 16 x 16 pixels; none for a picture that is kept whole. */
export async function decodeToMap(data: ArrayBuffer | Uint8Array): Promise<CellMap | undefined> {
  return (await ask("map", data, {})).map;
}

/** What is in a file, without decoding it. */
export async function readInfo(data: ArrayBuffer | Uint8Array): Promise<FileInfo> {
  return (await ask("info", data, {})).info!;
}

function ask(
  what: Request["what"],
  data: ArrayBuffer | Uint8Array,
  options: Request["options"],
  onReply?: (reply: Reply) => void,
): Promise<Reply> {
  const id = ++lastId;
  return new Promise((resolve, reject) => {
    const { worker, waiting } = leastBusy();
    waiting.set(id, (reply) => {
      if (reply.preview) {
        onReply?.(reply);
        return;
      }
      waiting.delete(id);
      if (reply.error) reject(errorOf(reply.error));
      else resolve(reply);
    });
    // A copy, since the caller keeps the bytes.
    const bytes = data instanceof Uint8Array ? data.slice() : new Uint8Array(data.slice(0));
    const request: Request = { id, what, models, data: bytes, options };
    worker.postMessage(request, [bytes.buffer]);
  });
}

function leastBusy(): Pooled {
  pool.sort((a, b) => a.waiting.size - b.waiting.size);
  const [first] = pool;
  if (first && (first.waiting.size === 0 || pool.length >= maxWorkers)) return first;
  const started = startWorker();
  pool.push(started);
  return started;
}

function startWorker(): Pooled {
  const worker = new Worker(workerUrl, { type: "module" });
  const started: Pooled = { worker, waiting: new Map() };
  worker.onmessage = ({ data }: MessageEvent<Reply>) => started.waiting.get(data.id)?.(data);
  worker.onerror = (event) => {
    event.preventDefault();
    worker.terminate();
    pool = pool.filter((other) => other !== started);
    const message = `the decoder's worker failed: ${event.message ?? "it cannot be loaded"}`;
    for (const [id, done] of started.waiting) done({ id, error: { name: "CodecError", message } });
  };
  return started;
}

function imageData({ data, width, height }: Pixels): ImageData {
  return new ImageData(data, width, height);
}

function errorOf({ name, message }: { name: string; message: string }): CodecError {
  if (name === "BitstreamError") return new BitstreamError(message);
  if (name === "ModelError") return new ModelError(message);
  return new CodecError(message);
}

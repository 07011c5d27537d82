// Decodes in a worker of its own, one file after the other, and all previews before that.

import { NO_MODEL } from "./container.ts";
import type { Header, Limits } from "./container.ts";
import {
  decodeMap,
  decodePixels,
  decodePreview,
  decodeWholePixels,
  readCheckedHeader,
} from "./decoder.ts";
import type { CellMap, Pixels, Rectangle } from "./decoder.ts";
import { asCodecError } from "./errors.ts";
import { ModelLibrary } from "./model_library.ts";
import { encodePng } from "./png.ts";
import { readMetadata } from "./side_sections.ts";
import type { Metadata } from "./side_sections.ts";
import { decodeWebp } from "./webp.ts";

export interface Request {
  id: number;
  what: "decode" | "png" | "map" | "info";
  models: string;
  data: Uint8Array;
  options: {
    region?: Rectangle;
    full?: boolean;
    preview?: boolean;
    quick?: boolean;
    limits?: Limits;
  };
}

/** What is in a file, without decoding it. */
export interface FileInfo {
  header: Header;
  metadata: Metadata;
}

export interface Reply {
  id: number;
  preview?: Pixels;
  pixels?: Pixels;
  icc?: Uint8Array;
  /** Whether the model has a better synthesis than its quickest. */
  hasFull?: boolean;
  png?: Uint8Array<ArrayBuffer>;
  map?: CellMap;
  info?: FileInfo;
  error?: { name: string; message: string };
}

const libraries = new Map<string, ModelLibrary>();
const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent<Request>) => void;
  postMessage(reply: Reply, transfer: Transferable[]): void;
};

/** What is to be done: quick things, and pictures. */
const quick: (() => Promise<void>)[] = [];
const slow: (() => Promise<void>)[] = [];
let running = false;

scope.onmessage = ({ data: request }) => {
  const { what, options } = request;
  const seen = what === "decode" && options.preview;
  if (what === "info" || seen) quick.push(() => answer(request, seen ? preview : answerWell));
  if (what !== "info") slow.push(() => answer(request, answerWell));
  void run();
};

async function run(): Promise<void> {
  if (running) return;
  running = true;
  for (let job; (job = quick.shift() ?? slow.shift()); ) {
    await job();
    // Lets messages in, that previews of other files go before this one's picture.
    await new Promise((resolve) => setTimeout(resolve));
  }
  running = false;
}

type Answer = (content: Omit<Reply, "id">, transfer?: Transferable[]) => void;

async function answer(
  request: Request,
  work: (request: Request, reply: Answer) => Promise<void>,
): Promise<void> {
  const { id } = request;
  try {
    await work(request, (content, transfer = []) => {
      scope.postMessage({ id, ...content }, transfer);
    });
  } catch (error) {
    const { name, message } = asCodecError(error);
    scope.postMessage({ id, error: { name, message } }, []);
  }
}

function libraryOf(folder: string): ModelLibrary {
  let library = libraries.get(folder);
  if (!library) libraries.set(folder, (library = new ModelLibrary(folder)));
  return library;
}

/** What is wrong with a file is said with its picture. */
async function preview({ models, data, options }: Request, reply: Answer): Promise<void> {
  try {
    const { identity } = readCheckedHeader(data, options.limits);
    if (identity === NO_MODEL) return;
    const model = await libraryOf(models).get(identity);
    if (!model.has("preview")) return;
    const made = await decodePreview(data, model, { limits: options.limits, decodeWebp });
    reply({ preview: made }, [made.data.buffer]);
  } catch {
    return;
  }
}

async function answerWell({ what, models, data, options }: Request, reply: Answer): Promise<void> {
  const limits = options.limits;
  const header = readCheckedHeader(data, limits);
  const metadata = await readMetadata(data, header, limits);
  if (what === "info") {
    reply({ info: { header, metadata } });
    return;
  }
  let pixels: Pixels;
  let hasFull = false;
  if (header.identity === NO_MODEL) {
    if (what === "map") {
      reply({});
      return;
    }
    pixels = await decodeWholePixels(data, decodeWebp, options);
  } else {
    const library = libraryOf(models);
    const model = await (options.full
      ? library.getFull(header.identity)
      : library.get(header.identity));
    if (what === "map") {
      const map = decodeMap(data, model, limits);
      reply({ map }, [map.bits.buffer, map.levels.buffer]);
      return;
    }
    hasFull = await library.hasFull(header.identity);
    const graph = options.full ? "synthesis" : undefined;
    pixels = await decodePixels(data, model, { ...options, ...(graph && { graph }), decodeWebp });
  }
  if (what === "png") {
    const png = await encodePng(pixels, metadata, options.quick);
    reply({ png }, [png.buffer]);
  } else {
    const icc = metadata.icc && { icc: metadata.icc };
    reply({ pixels, hasFull, ...icc }, [pixels.data.buffer]);
  }
}


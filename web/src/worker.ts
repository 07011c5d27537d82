// Decodes in a worker of its own, one file after the other.

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
let last: Promise<void> = Promise.resolve();

scope.onmessage = ({ data: request }) => {
  last = last.then(() => answer(request));
};

async function answer(request: Request): Promise<void> {
  const { id } = request;
  const reply = (content: Omit<Reply, "id">, transfer: Transferable[] = []): void =>
    scope.postMessage({ id, ...content }, transfer);
  try {
    await answerWell(request, reply);
  } catch (error) {
    const { name, message } = asCodecError(error);
    reply({ error: { name, message } });
  }
}

async function answerWell(
  { what, models, data, options }: Request,
  reply: (content: Omit<Reply, "id">, transfer?: Transferable[]) => void,
): Promise<void> {
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
    let library = libraries.get(models);
    if (!library) libraries.set(models, (library = new ModelLibrary(models)));
    const model = await (options.full
      ? library.getFull(header.identity)
      : library.get(header.identity));
    if (what === "map") {
      const map = decodeMap(data, model, limits);
      reply({ map }, [map.bits.buffer, map.levels.buffer]);
      return;
    }
    if (options.preview && model.has("preview")) {
      const preview = decodePreview(data, model, limits);
      reply({ preview }, [preview.data.buffer]);
    }
    hasFull = await library.hasFull(header.identity);
    const graph = options.full ? "synthesis" : undefined;
    pixels = await decodePixels(data, model, { ...options, ...(graph && { graph }) });
  }
  if (what === "png") {
    const png = await encodePng(pixels, metadata);
    reply({ png }, [png.buffer]);
  } else {
    const icc = metadata.icc && { icc: metadata.icc };
    reply({ pixels, hasFull, ...icc }, [pixels.data.buffer]);
  }
}


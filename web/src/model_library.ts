// Fetches models, in parts and once: `cwic models --web` writes the folder that it reads.

import { Model } from "./decoder.ts";
import { ModelError } from "./errors.ts";
import { Kernels } from "./kernels.ts";
import { KERNELS_WASM } from "./kernels_wasm.ts";
import { readModelFile } from "./model_file.ts";

interface Part {
  file: string;
  bytes: number;
  graphs: string[];
}

interface Entry {
  name: string;
  first: Part;
  full?: Part;
}

const INDEX = "index.json";
const FORMAT = "cwic-web-1";
const CACHE = "cwic-models";

export class ModelLibrary {
  readonly #folder: URL;
  #index: Promise<Record<string, Entry>> | undefined;
  readonly #models = new Map<string, Promise<Model>>();
  readonly #full = new Map<string, Promise<void>>();

  /** `folder` ends in a slash. */
  constructor(folder: string | URL) {
    this.#folder = new URL(folder);
  }

  /** The model of an identity, with its first part. */
  async get(identity: string): Promise<Model> {
    return once(this.#models, identity, async () => {
      const { first } = await this.#entry(identity);
      const file = await readModelFile(await this.#fetch(first));
      return new Model(await Kernels.load(KERNELS_WASM), file);
    });
  }

  /** The same with its full synthesis. */
  async getFull(identity: string): Promise<Model> {
    const model = await this.get(identity);
    if (!model.has("synthesis")) {
      await once(this.#full, identity, async () => {
        const { full } = await this.#entry(identity);
        if (!full) throw new ModelError(`model ${identity}: expected a full synthesis, found none`);
        model.addGraphs(await readModelFile(await this.#fetch(full)));
      });
    }
    return model;
  }

  /** Whether there is a better synthesis than that of the first part. */
  async hasFull(identity: string): Promise<boolean> {
    return !!(await this.#entry(identity)).full;
  }

  async #entry(identity: string): Promise<Entry> {
    this.#index ??= this.#readIndex();
    this.#index.catch(() => (this.#index = undefined));
    const entry = (await this.#index)[identity];
    if (!entry) {
      throw new ModelError(`the file was made by model ${identity}, which ${this.#folder} lacks`);
    }
    return entry;
  }

  async #readIndex(): Promise<Record<string, Entry>> {
    const url = new URL(INDEX, this.#folder);
    const response = await fetched(url);
    const found = (await response.json().catch(() => undefined)) as
      | { format: string; models: Record<string, Entry> }
      | undefined;
    if (found?.format !== FORMAT) throw new ModelError(`${url}: expected an index of models`);
    return found.models;
  }

  /** A part never changes: its name holds a hash of its bytes. */
  async #fetch(part: Part): Promise<Uint8Array> {
    const url = new URL(part.file, this.#folder);
    // Only pages of secure origins have this cache; others have that of HTTP.
    const cache = await globalThis.caches?.open(CACHE).catch(() => undefined);
    let response = await cache?.match(url).catch(() => undefined);
    if (!response) {
      response = await fetched(url);
      await cache?.put(url, response.clone()).catch(() => undefined);
    }
    const data = new Uint8Array(await response.arrayBuffer());
    if (data.length !== part.bytes) {
      await cache?.delete(url);
      throw new ModelError(`${url}: expected ${part.bytes} bytes, found ${data.length}`);
    }
    return data;
  }
}

async function fetched(url: URL): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url);
  } catch (error) {
    throw new ModelError(`${url}: cannot be fetched: ${(error as Error).message}`);
  }
  if (!response.ok) throw new ModelError(`${url}: cannot be fetched: ${response.status}`);
  return response;
}

/** The same promise for all who ask; one that failed is asked for again. */
async function once<T>(
  found: Map<string, Promise<T>>,
  key: string,
  make: () => Promise<T>,
): Promise<T> {
  let promise = found.get(key);
  if (!promise) {
    promise = make();
    found.set(key, promise);
    promise.catch(() => found.delete(key));
  }
  return promise;
}

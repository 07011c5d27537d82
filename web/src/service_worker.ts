// A service worker that answers images of the page with PNG files made of .cwic files.
//
// Models are in `models/` beside this script, or where its own address says: `?models=FOLDER/`.

import { NO_MODEL } from "./container.ts";
import { decodePixels, decodeWholePixels, readCheckedHeader } from "./decoder.ts";
import { asCodecError } from "./errors.ts";
import { ModelLibrary } from "./model_library.ts";
import { encodePng } from "./png.ts";
import { readMetadata } from "./side_sections.ts";
import { decodeWebp } from "./webp.ts";

interface FetchEvent extends Event {
  readonly request: Request;
  respondWith(response: Promise<Response>): void;
  waitUntil(promise: Promise<unknown>): void;
}

interface Scope extends EventTarget {
  readonly location: Location;
  readonly clients: { claim(): Promise<void> };
  skipWaiting(): Promise<void>;
}

const scope = globalThis as unknown as Scope;
const asked = new URL(scope.location.href).searchParams.get("models") ?? "models/";
const library = new ModelLibrary(new URL(asked.replace(/\/?$/, "/"), scope.location.href));
let last: Promise<unknown> = Promise.resolve();

scope.addEventListener("install", (event) => (event as FetchEvent).waitUntil(scope.skipWaiting()));
scope.addEventListener("activate", (event) =>
  (event as FetchEvent).waitUntil(scope.clients.claim()),
);
scope.addEventListener("fetch", (event) => {
  const { request } = event as FetchEvent;
  const { pathname } = new URL(request.url);
  if (request.destination !== "image" || !pathname.endsWith(".cwic")) return;
  (event as FetchEvent).respondWith(answer(request));
});

async function answer(request: Request): Promise<Response> {
  const response = await fetch(request.url, {
    credentials: request.credentials,
    signal: request.signal,
  });
  if (!response.ok) return response;
  const data = new Uint8Array(await response.arrayBuffer());
  // One after the other: each needs memory of the size of its picture.
  const made = last.then(() => png(data));
  last = made.catch(() => undefined);
  try {
    return new Response(await made, { headers: { "Content-Type": "image/png" } });
  } catch (error) {
    const { name, message } = asCodecError(error);
    return new Response(`${name}: ${message}`, { status: 415, headers: { "Content-Type": "text/plain" } });
  }
}

async function png(data: Uint8Array): Promise<Uint8Array<ArrayBuffer>> {
  const header = readCheckedHeader(data);
  const metadata = await readMetadata(data, header);
  const pixels =
    header.identity === NO_MODEL
      ? await decodeWholePixels(data, decodeWebp)
      : await decodePixels(data, await library.get(header.identity), { decodeWebp });
  return encodePng(pixels, metadata, true);
}

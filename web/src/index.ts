// What a page imports: functions, the element, and plain images by a service worker.

export * from "./errors.ts";
export { configure, decode, decodeToMap, decodeToPng, decodeWithProfile, readInfo } from "./client.ts";
export type { Decoded, DecodeOptions, PngOptions, Settings } from "./client.ts";
export type { CellMap, Rectangle } from "./decoder.ts";
export { CwicImage } from "./element.ts";

/**
 * Lets plain `<img src="x.cwic">` work on pages below `script`, from the next picture on.
 *
 * Pictures of this page that could not be shown before the service worker ran are asked for again.
 */
export async function usePlainImages(script: string | URL = "cwic-service-worker.js"): Promise<void> {
  await navigator.serviceWorker.register(script);
  await navigator.serviceWorker.ready;
  if (!navigator.serviceWorker.controller) {
    await new Promise((resolve) => {
      navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true });
    });
  }
  for (const image of document.querySelectorAll("img")) {
    const { pathname } = new URL(image.currentSrc || image.src, document.baseURI);
    if (pathname.endsWith(".cwic") && image.complete && !image.naturalWidth) {
      image.src = image.src;
    }
  }
}

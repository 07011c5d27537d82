// The page that shows one file: picture, metadata, where its bits went, and a PNG to keep.

import { decodeToMap, decodeToPng, decodeWithProfile, readInfo } from "./client.ts";
import { Kind, Mode, NO_MODEL } from "./container.ts";
import { exifFacts } from "./exif.ts";
import type { FileInfo } from "./worker.ts";

function element<T extends HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}

const [title, stage, frame, hint, message, facts, legend] = [
  "title", "stage", "frame", "hint", "message", "facts", "legend",
].map(element) as [HTMLElement, HTMLElement, HTMLElement, HTMLElement, HTMLElement, HTMLElement, HTMLElement];
const picture = element<HTMLCanvasElement>("picture");
const map = element<HTMLCanvasElement>("map");
const open = element<HTMLInputElement>("open");
const [showMap, full, save] = ["show-map", "full", "save"].map(element) as [
  HTMLButtonElement, HTMLButtonElement, HTMLButtonElement,
];

let current: { name: string; data: Uint8Array; info: FileInfo } | undefined;
let mapDrawn = false;
/** Counts files and wishes, so that what comes too late is not shown. */
let turn = 0;

async function view(name: string, data: Uint8Array): Promise<void> {
  const mine = ++turn;
  begin(name);
  try {
    const info = await readInfo(data);
    if (mine !== turn) return;
    current = { name, data, info };
    listFacts(data, info);
    await drawPicture(mine);
    document.title = name;
  } catch (error) {
    if (mine === turn) fail(error);
  }
}

function begin(name: string): void {
  current = undefined;
  mapDrawn = false;
  title.textContent = name;
  for (const part of [message, frame, map, legend]) part.hidden = true;
  for (const button of [showMap, full, save]) {
    button.disabled = true;
    button.setAttribute("aria-pressed", "false");
  }
  facts.replaceChildren();
  hint.hidden = false;
  hint.textContent = "Decoding ...";
}

async function drawPicture(mine: number): Promise<void> {
  const { data, info } = current!;
  const start = performance.now();
  const draw = (pixels: ImageData): void => {
    if (mine !== turn) return;
    picture.width = pixels.width;
    picture.height = pixels.height;
    picture.getContext("2d")!.putImageData(pixels, 0, 0);
    picture.style.width = `${info.header.width}px`;
    picture.setAttribute("aria-label", current!.name);
    frame.hidden = false;
    hint.hidden = true;
  };
  const { pixels, hasFull } = await decodeWithProfile(data, {
    full: full.getAttribute("aria-pressed") === "true",
    onPreview: draw,
  });
  if (mine !== turn) return;
  draw(pixels);
  setFact("shown after", `${((performance.now() - start) / 1000).toFixed(2)} s`);
  const coded = info.header.identity !== NO_MODEL;
  save.disabled = false;
  showMap.disabled = !coded;
  full.disabled = !hasFull;
}

function listFacts(data: Uint8Array, { header, metadata }: FileInfo): void {
  const pixels = header.width * header.height;
  setFact("picture", `${header.width} x ${header.height}, ${Mode[header.mode]!.replace("_", " ")}`);
  setFact("file", `${data.length.toLocaleString("en")} bytes, ${((8 * data.length) / pixels).toFixed(3)} bpp`);
  const kept = header.q === 0 ? "whole" : `in ${header.q} colours`;
  setFact("model", header.identity === NO_MODEL ? `none: kept ${kept}` : header.identity);
  const exact = header.sections.find(({ kind }) => kind === Kind.EXACT);
  if (exact) setFact("exact", `text and graphics, ${exact.length.toLocaleString("en")} bytes`);
  if (header.identity !== NO_MODEL) setFact("q", `${header.q} / 64`);
  if (header.tileSide) setFact("tiles", `${header.tiles.length} of ${header.tileSide} px`);
  for (const name of ["icc", "exif", "xmp", "thumbnail"] as const) {
    const found = metadata[name];
    if (found) setFact(name === "thumbnail" ? name : name.toUpperCase(), `${found.length} bytes`);
  }
  for (const [name, value] of exifFacts(metadata.exif)) setFact(name, value);
}

function setFact(name: string, value: string): void {
  let row = Array.from(facts.children).find((child) => child.firstChild!.textContent === name);
  if (!row) {
    row = document.createElement("tr");
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = name;
    row.append(head, document.createElement("td"));
    facts.append(row);
  }
  row.lastChild!.textContent = value;
}

async function drawMap(mine: number): Promise<void> {
  const found = await decodeToMap(current!.data);
  if (!found || mine !== turn) return;
  map.width = found.width;
  map.height = found.height;
  const most = Math.max(1, Array.from(found.bits).sort((a, b) => a - b)[
    Math.floor(0.99 * (found.bits.length - 1))
  ]!);
  const image = new ImageData(found.width, found.height);
  found.bits.forEach((bits, i) => {
    const share = Math.min(bits / most, 1);
    image.data.set(
      [share, 1 - Math.abs(2 * share - 1), 1 - share].map((part) => 255 * Math.sqrt(part)),
      4 * i,
    );
    image.data[4 * i + 3] = 255;
  });
  map.getContext("2d")!.putImageData(image, 0, 0);
  // Cells at the right and at the bottom may lie partly outside.
  const { header } = current!.info;
  map.style.width = `${(1600 * found.width) / header.width}%`;
  map.style.height = `${(1600 * found.height) / header.height}%`;
  frame.style.overflow = "hidden";
  mapDrawn = true;
}

function fail(error: unknown): void {
  hint.hidden = true;
  message.hidden = false;
  message.textContent = error instanceof Error ? error.message : String(error);
}

function toggled(button: HTMLButtonElement): boolean {
  const pressed = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(pressed));
  return pressed;
}

showMap.addEventListener("click", async () => {
  const shown = toggled(showMap);
  const mine = turn;
  try {
    if (shown && !mapDrawn) await drawMap(mine);
  } catch (error) {
    fail(error);
  }
  if (mine === turn) map.hidden = legend.hidden = !shown;
});

full.addEventListener("click", async () => {
  toggled(full);
  const mine = ++turn;
  try {
    await drawPicture(mine);
  } catch (error) {
    if (mine === turn) fail(error);
  }
});

save.addEventListener("click", async () => {
  const { name, data } = current!;
  try {
    const file = await decodeToPng(data, { full: full.getAttribute("aria-pressed") === "true" });
    const link = document.createElement("a");
    link.download = name.replace(/\.cwic$/, "") + ".png";
    link.href = URL.createObjectURL(file);
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  } catch (error) {
    fail(error);
  }
});

async function viewFile(file: File | undefined): Promise<void> {
  if (file) await view(file.name, new Uint8Array(await file.arrayBuffer()));
}

open.addEventListener("change", () => void viewFile(open.files?.[0]));
addEventListener("dragover", (event) => {
  event.preventDefault();
  stage.classList.add("over");
});
addEventListener("dragleave", () => stage.classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  stage.classList.remove("over");
  void viewFile(event.dataTransfer?.files[0]);
});

async function viewLink(link: string): Promise<void> {
  const url = new URL(link, document.baseURI);
  const name = decodeURIComponent(url.pathname.split("/").pop() ?? link);
  begin(name);
  try {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`${url}: cannot be fetched: ${response.status}`);
    await view(name, new Uint8Array(await response.arrayBuffer()));
  } catch (error) {
    fail(error);
  }
}

const link = new URL(location.href).searchParams.get("src");
if (link) void viewLink(link);

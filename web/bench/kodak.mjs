// What a picture costs in headless Chromium, on one thread: node bench/kodak.mjs MODELS FILE.cwic...
//
// MODELS is a folder of `cwic models --web`. Prints Markdown, for each file a row with the quickest
// synthesis of its model and one with the full one, each in a context that has loaded nothing yet: bytes
// that were fetched, seconds of the first picture and of one that is warm (median of 7), the processor's
// time, mean of all 8, memory of the page's process at its highest above that of an empty page, and the
// longest time between two ticks of a timer of 10 ms. benchmarks/browser.py runs it.

import { readFileSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { launch } from "../test/chromium.mjs";
import { serve } from "../test/site.mjs";

const RUNS = 7;
const [models, ...files] = process.argv.slice(2);
if (!models || !files.length) throw new Error("expected MODELS FILE.cwic...");
const dist = fileURLToPath(new URL("../dist/", import.meta.url));
const browser = await launch();
console.log(`Chromium ${browser.version()}, one thread of WebAssembly.\n`);
console.log(
  "| file | synthesis | model MB | program MB | preview s | first picture s | next s | processor s | memory MB | page waits ms |",
);
console.log("|---|---|---|---|---|---|---|---|---|---|");
for (const file of files) {
  for (const full of [false, true]) console.log(`| ${(await row(resolve(file), full)).join(" | ")} |`);
}
await browser.close();

/** What one file costs: the cells of its row. */
async function row(file, full) {
  const site = await serve([dist, dirname(resolve(models)), dirname(file)], {
    "empty.html": "<!doctype html><title>empty</title>",
  });
  const context = await browser.newContext();
  const page = await context.newPage();
  const fetched = { program: 0, model: 0 };
  context.on("response", async (response) => {
    const { pathname } = new URL(response.url());
    const kind = pathname.includes("/models/") ? "model" : /\.(js|wasm)$/.test(pathname) ? "program" : undefined;
    if (kind) fetched[kind] += Number((await response.allHeaders())["content-length"] ?? 0);
  });
  await page.goto(`${site.url}empty.html`);
  const before = new Map(
    (await renderers()).map((id) => [id, { memory: status(id, "VmRSS"), cpu: cpuSeconds(id) }]),
  );
  const found = await page.evaluate(
    async ({ name, folder, runs, full }) => {
      let last = performance.now();
      let gap = 0;
      const timer = setInterval(() => {
        const now = performance.now();
        gap = Math.max(gap, now - last);
        last = now;
      }, 10);
      const start = performance.now();
      const cwic = await import("./cwic.js");
      cwic.configure({ models: folder });
      const data = new Uint8Array(await (await fetch(name)).arrayBuffer());
      let preview = 0;
      await cwic.decode(data, { full, onPreview: () => (preview ||= performance.now() - start) });
      const times = [performance.now() - start];
      for (let i = 0; i < runs; i++) {
        const from = performance.now();
        await cwic.decode(data, { full });
        times.push(performance.now() - from);
      }
      clearInterval(timer);
      return { preview, times, gap };
    },
    { name: basename(file), folder: `${basename(resolve(models))}/`, runs: RUNS, full },
  );
  // The page's process is the one that has worked.
  const spent = (id) => cpuSeconds(id) - (before.get(id)?.cpu ?? 0);
  const [pid] = (await renderers()).sort((a, b) => spent(b) - spent(a));
  const seconds = (ms) => (ms / 1000).toFixed(2);
  const megabytes = (bytes) => (bytes / 1e6).toFixed(2);
  const warm = found.times.slice(1).sort((a, b) => a - b);
  const cells = [
    basename(file, ".cwic"),
    full ? "full" : "quickest",
    megabytes(fetched.model),
    megabytes(fetched.program),
    seconds(found.preview),
    seconds(found.times[0]),
    seconds(warm[RUNS >> 1]),
    (spent(pid) / (RUNS + 1)).toFixed(2),
    status(pid, "VmHWM") - (before.get(pid)?.memory ?? 0),
    found.gap.toFixed(0),
  ];
  await context.close();
  await site.close();
  return cells;
}

/** Processes of pages. */
async function renderers() {
  const session = await browser.newBrowserCDPSession();
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  await session.detach();
  return processInfo.filter(({ type }) => type === "renderer").map(({ id }) => id);
}

/** Megabytes of a line of a process's status. */
function status(pid, line) {
  const found = new RegExp(`${line}:\\s*(\\d+)`).exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  return Math.round((1024 * Number(found[1])) / 1e6);
}

/** Of all threads of a process. */
function cpuSeconds(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

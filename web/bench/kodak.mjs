// What a picture costs in headless Chromium, on one thread: node bench/kodak.mjs MODELS FILE.cwic...
//
// MODELS is a folder of `cwic models --web`. Prints seconds of a decoder that has just been loaded and
// of one that is warm (the best and the median of 7), bytes that were fetched, the processor's time,
// memory of the page's process at its highest beside that of an empty page, and the longest time for
// which the page could not answer.

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
console.log(`Chromium ${browser.version()}`);
for (const file of files) {
  const site = await serve([dist, dirname(resolve(models)), dirname(resolve(file))], {
    "empty.html": "<!doctype html><title>empty</title>",
  });
  const context = await browser.newContext();
  const page = await context.newPage();
  let fetched = { program: 0, model: 0, file: 0 };
  page.context().on("response", async (response) => {
    const { pathname } = new URL(response.url());
    const kind = pathname.includes("/models/") ? "model" : pathname.endsWith(".js") ? "program" : "file";
    const size = Number((await response.allHeaders())["content-length"] ?? 0);
    if (!pathname.endsWith(".html")) fetched[kind] += size;
  });
  await page.goto(`${site.url}empty.html`);
  const before = new Map(
    (await renderers()).map((id) => [id, { memory: status(id, "VmRSS"), cpu: cpuSeconds(id) }]),
  );
  const folder = `${basename(resolve(models))}/`;
  const found = await page.evaluate(
    async ({ name, folder, runs }) => {
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
      await cwic.decode(data, { onPreview: () => (preview ||= performance.now() - start) });
      const times = [performance.now() - start];
      for (let i = 0; i < runs; i++) {
        const from = performance.now();
        await cwic.decode(data);
        times.push(performance.now() - from);
      }
      clearInterval(timer);
      return { preview, times, gap };
    },
    { name: basename(file), folder, runs: RUNS },
  );
  // The page's process is the one that has worked.
  const spent = (id) => cpuSeconds(id) - (before.get(id)?.cpu ?? 0);
  const [pid] = (await renderers()).sort((a, b) => spent(b) - spent(a));
  const seconds = (ms) => `${(ms / 1000).toFixed(2)} s`;
  const warm = found.times.slice(1).sort((a, b) => a - b);
  console.log(basename(file));
  console.log(`  first: preview ${seconds(found.preview)}, picture ${seconds(found.times[0])}`);
  console.log(`  warm: best ${seconds(warm[0])}, median ${seconds(warm[RUNS >> 1])}`);
  console.log(`  processor, all ${RUNS + 1}: ${spent(pid).toFixed(1)} s`);
  console.log(`  fetched: ${JSON.stringify(fetched)} bytes`);
  const peak = status(pid, "VmHWM");
  console.log(`  memory: ${peak} MB at most, ${before.get(pid)?.memory} MB before`);
  console.log(`  the page answered within ${found.gap.toFixed(0)} ms`);
  await context.close();
  await site.close();
}
await browser.close();

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
  return Math.round(Number(found[1]) / 1024);
}

/** Of all threads of a process. */
function cpuSeconds(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

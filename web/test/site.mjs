// A folder of what `dist/` has, models and files, served on this machine.

import { createServer } from "node:http";
import { readFile, stat } from "node:fs/promises";
import { extname, join, normalize } from "node:path";

const TYPES = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
  ".json": "application/json",
  ".png": "image/png",
};

/** Serves files of `folders`, the first that has one, and texts of `pages`. */
export async function serve(folders, pages = {}) {
  const asked = [];
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    asked.push(pathname);
    const path = normalize(decodeURIComponent(pathname)).replace(/^\/+/, "") || "index.html";
    const send = (body, type) => {
      response.writeHead(200, { "Content-Type": type, "Content-Length": body.length });
      response.end(body);
    };
    if (path in pages) return send(Buffer.from(pages[path]), TYPES[extname(path)] ?? "text/html");
    for (const folder of folders) {
      const file = join(folder, path);
      const found = await stat(file).catch(() => undefined);
      if (found?.isFile()) {
        return send(await readFile(file), TYPES[extname(file)] ?? "application/octet-stream");
      }
    }
    response.writeHead(404);
    response.end();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    asked,
    close: () => new Promise((resolve) => server.close(resolve)),
  };
}

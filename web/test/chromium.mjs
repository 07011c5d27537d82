// A headless Chromium of this machine, or a word why there is none.

import { existsSync } from "node:fs";
import { chromium } from "playwright-core";

const PLACES = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

export const executablePath = PLACES.find((path) => path && existsSync(path));
export const missing = executablePath ? false : "no Chromium here: Debian's package chromium, or CHROMIUM=PATH";

export function launch() {
  return chromium.launch({ executablePath, args: ["--no-sandbox"] });
}

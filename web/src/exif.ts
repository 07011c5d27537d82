// A few words of an EXIF block, for a person to read.

const TAGS: Record<number, string> = {
  0x010e: "description",
  0x010f: "make",
  0x0110: "camera",
  0x0131: "software",
  0x0132: "date",
  0x013b: "artist",
  0x8298: "copyright",
};
const ASCII = 2;
const MAX_ENTRIES = 512;

/** Texts of the first directory; nothing of a block that is damaged. */
export function exifFacts(exif: Uint8Array | undefined): [string, string][] {
  if (!exif) return [];
  try {
    return readTexts(exif);
  } catch {
    return [];
  }
}

function readTexts(exif: Uint8Array): [string, string][] {
  const view = new DataView(exif.buffer, exif.byteOffset, exif.byteLength);
  const little = exif[0] === 0x49;
  const start = view.getUint32(4, little);
  const count = Math.min(view.getUint16(start, little), MAX_ENTRIES);
  const found: [string, string][] = [];
  for (let i = 0; i < count; i++) {
    const at = start + 2 + 12 * i;
    const name = TAGS[view.getUint16(at, little)];
    if (!name || view.getUint16(at + 2, little) !== ASCII) continue;
    const length = view.getUint32(at + 4, little);
    const from = length <= 4 ? at + 8 : view.getUint32(at + 8, little);
    const text = new TextDecoder().decode(exif.subarray(from, from + length)).replace(/\0.*$/s, "");
    if (text.trim()) found.push([name, text.trim()]);
  }
  return found;
}

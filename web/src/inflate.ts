// Compressed streams by what the browser has, never beyond a bound.

export type Format = "deflate" | "deflate-raw" | "gzip";

/**
 * Inflate one stream.
 *
 * Throws whatever the browser throws on damaged data, and a RangeError beyond `maxBytes`.
 */
export async function inflate(
  data: Uint8Array,
  maxBytes: number,
  format: Format = "deflate",
): Promise<Uint8Array> {
  const stream = new DecompressionStream(format);
  const writer = stream.writable.getWriter();
  // What goes wrong with writing goes wrong with reading, where it is looked at.
  writer.write(data as Uint8Array<ArrayBuffer>).catch(() => undefined);
  writer.close().catch(() => undefined);
  const reader = stream.readable.getReader();
  const chunks: Uint8Array[] = [];
  let length = 0;
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    length += value.length;
    if (length > maxBytes) {
      await reader.cancel().catch(() => undefined);
      throw new RangeError(`expected at most ${maxBytes} bytes, found more`);
    }
    chunks.push(value);
  }
  return joined(chunks);
}

/** The other direction. */
export async function deflate(data: Uint8Array): Promise<Uint8Array> {
  const body = new Blob([data as Uint8Array<ArrayBuffer>]).stream();
  const stream = body.pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

export function joined(chunks: Uint8Array[]): Uint8Array {
  if (chunks.length === 1) return chunks[0]!;
  const result = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    result.set(chunk, at);
    at += chunk.length;
  }
  return result;
}

// What can go wrong, in words. Whatever bytes come in, the decoder throws these and nothing else.

/** Everything that this package throws on purpose. */
export class CodecError extends Error {
  override name = "CodecError";
}

/** The bytes are no `.cwic` file, a damaged one, or ask for more than the limits allow. */
export class BitstreamError extends CodecError {
  override name = "BitstreamError";
}

/** A model is missing, damaged, or of a kind that this decoder does not know. */
export class ModelError extends CodecError {
  override name = "ModelError";
}

/** Any error as one that this package throws: running out of memory is one as well. */
export function asCodecError(error: unknown): CodecError {
  if (error instanceof CodecError) return error;
  const text = error instanceof Error ? error.message : String(error);
  if (error instanceof RangeError) return new CodecError(`not enough memory: ${text}`);
  return new CodecError(`the decoder failed: ${text}`);
}

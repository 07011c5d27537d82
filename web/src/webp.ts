// The browser's own WebP decoder, without its premultiplication of colours by alpha.

export async function decodeWebp(
  file: Uint8Array,
  alpha: boolean,
): Promise<Uint8ClampedArray> {
  const blob = new Blob([file as Uint8Array<ArrayBuffer>], { type: "image/webp" });
  const picture = await createImageBitmap(blob, {
    premultiplyAlpha: "none",
    colorSpaceConversion: "none",
  });
  const { width, height } = picture;
  try {
    return (alpha && readByTexture(picture)) || readByCanvas(picture, width, height);
  } finally {
    picture.close();
  }
}

/** Exact for opaque pictures; colours of transparent pixels are rounded. */
function readByCanvas(picture: ImageBitmap, width: number, height: number): Uint8ClampedArray {
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("the browser has no canvas");
  context.drawImage(picture, 0, 0);
  return context.getImageData(0, 0, width, height).data;
}

/** Exact whatever alpha is, where the browser has WebGL. */
function readByTexture(picture: ImageBitmap): Uint8ClampedArray | undefined {
  const { width, height } = picture;
  const gl = new OffscreenCanvas(1, 1).getContext("webgl2");
  if (!gl || Math.max(width, height) > gl.getParameter(gl.MAX_TEXTURE_SIZE)) return undefined;
  const texture = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, texture);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, picture);
  const buffer = gl.createFramebuffer();
  gl.bindFramebuffer(gl.FRAMEBUFFER, buffer);
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
  const pixels = new Uint8Array(width * height * 4);
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
  const failed = gl.getError() !== gl.NO_ERROR;
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return failed ? undefined : new Uint8ClampedArray(pixels.buffer);
}

// <cwic-img src alt width height>: the preview first, then the picture.

import { decodeToPng, decodeWithProfile, readInfo } from "./client.ts";

// What a page's own style says of `cwic-img` goes before all this.
const STYLE = `
  :host { display: inline-block; vertical-align: bottom; overflow: hidden; }
  :host([hidden]) { display: none; }
  canvas, img { display: block; width: 100%; height: 100%; object-fit: inherit; }
`;

export class CwicImage extends HTMLElement {
  static readonly observedAttributes = ["src", "alt", "width", "height"];

  readonly #root = this.attachShadow({ mode: "open" });
  readonly #sides = document.createElement("style");
  readonly #canvas = document.createElement("canvas");
  #current = "";
  #observer: IntersectionObserver | undefined;
  #url: string | undefined;
  /** Sides of the picture in pixels, 0 until they are known. */
  naturalWidth = 0;
  naturalHeight = 0;
  /** Whether the picture is there. */
  complete = false;

  constructor() {
    super();
    const style = document.createElement("style");
    style.textContent = STYLE;
    this.#root.append(style, this.#sides);
  }

  get src(): string {
    const src = this.getAttribute("src");
    return src ? new URL(src, document.baseURI).href : "";
  }

  set src(value: string) {
    this.setAttribute("src", value);
  }

  connectedCallback(): void {
    if (!this.hasAttribute("role")) this.setAttribute("role", "img");
    this.#layout();
    this.#begin();
  }

  disconnectedCallback(): void {
    this.#observer?.disconnect();
  }

  attributeChangedCallback(name: string): void {
    if (!this.isConnected) return;
    this.#layout();
    if (name === "src") this.#begin();
  }

  #layout(): void {
    this.setAttribute("aria-label", this.getAttribute("alt") ?? "");
    const sideOf = (name: string): number => Number(this.getAttribute(name)) || 0;
    const [width, height] = [sideOf("width"), sideOf("height")];
    const natural = [this.naturalWidth, this.naturalHeight] as const;
    const ratio = width && height ? [width, height] : natural;
    this.#sides.textContent = `:host {
      width: ${width ? px(width) : height ? "auto" : px(natural[0])};
      height: ${px(height)};
      aspect-ratio: ${ratio[0] ? `${ratio[0]} / ${ratio[1]}` : "auto"};
    }`;
  }

  #begin(): void {
    this.#observer?.disconnect();
    if (this.getAttribute("loading") !== "lazy") {
      void this.#load();
      return;
    }
    this.#observer = new IntersectionObserver(
      (entries) => {
        if (!entries.some((entry) => entry.isIntersecting)) return;
        this.#observer?.disconnect();
        void this.#load();
      },
      { rootMargin: "50%" },
    );
    this.#observer.observe(this);
  }

  async #load(): Promise<void> {
    const src = this.src;
    if (!src || src === this.#current) return;
    this.#current = src;
    this.complete = false;
    const stale = (): boolean => this.#current !== src;
    try {
      const response = await fetch(src);
      if (!response.ok) throw new Error(`${src}: cannot be fetched: ${response.status}`);
      const data = new Uint8Array(await response.arrayBuffer());
      const { header, metadata } = await readInfo(data);
      if (stale()) return;
      this.naturalWidth = header.width;
      this.naturalHeight = header.height;
      this.#layout();
      const onPreview = (preview: ImageData): void => {
        if (stale()) return;
        this.#draw(preview);
        this.dispatchEvent(new Event("preview"));
      };
      if (metadata.icc) {
        // Only an image file tells the browser of a colour profile.
        await this.#show(await decodeToPng(data, { quick: true }), stale);
      } else {
        const { pixels } = await decodeWithProfile(data, { onPreview });
        if (!stale()) this.#draw(pixels);
      }
      if (stale()) return;
      this.complete = true;
      this.dispatchEvent(new Event("load"));
    } catch (error) {
      if (stale()) return;
      this.#current = "";
      this.#place(document.createTextNode(this.getAttribute("alt") ?? ""));
      this.dispatchEvent(new ErrorEvent("error", { error, message: (error as Error).message }));
    }
  }

  #draw(pixels: ImageData): void {
    this.#canvas.width = pixels.width;
    this.#canvas.height = pixels.height;
    this.#canvas.getContext("2d")!.putImageData(pixels, 0, 0);
    this.#place(this.#canvas);
  }

  async #show(file: Blob, stale: () => boolean): Promise<void> {
    if (stale()) return;
    const image = new Image();
    image.alt = "";
    image.src = URL.createObjectURL(file);
    await image.decode();
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = image.src;
    this.#place(image);
  }

  #place(node: Node): void {
    if (this.#root.lastChild === node) return;
    while (this.#root.childNodes.length > 2) this.#root.lastChild!.remove();
    this.#root.append(node);
  }
}

function px(count: number): string {
  return count ? `${count}px` : "auto";
}

if (!customElements.get("cwic-img")) customElements.define("cwic-img", CwicImage);

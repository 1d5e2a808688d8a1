// A mask as the server packs it: the bits of its bounding box.

export class Mask {
  constructor(origin, shape, values) {
    this.origin = origin;
    this.shape = shape;
    this.values = values;
  }

  static async unpack(packed) {
    const [depth, height, width] = packed.shape_zyx;
    const values = new Uint8Array(depth * height * width);
    if (values.length > 0) {
      const bytes = Uint8Array.from(atob(packed.bits), (letter) => letter.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      const bits = new Uint8Array(await new Response(stream).arrayBuffer());
      for (let i = 0; i < values.length; i++) values[i] = (bits[i >> 3] >> (i & 7)) & 1;
    }
    return new Mask(packed.origin_zyx, packed.shape_zyx, values);
  }

  get empty() {
    return this.values.length === 0;
  }

  at(z, y, x) {
    const [oz, oy, ox] = this.origin;
    const [depth, height, width] = this.shape;
    z -= oz;
    y -= oy;
    x -= ox;
    if (z < 0 || y < 0 || x < 0 || z >= depth || y >= height || x >= width) return 0;
    return this.values[(z * height + y) * width + x];
  }

  // First and last slice; null of an empty mask.
  get span() {
    return this.empty ? null : [this.origin[0], this.origin[0] + this.shape[0] - 1];
  }
}

// The voxels of a scan: slabs of slices, fetched once from the key slice outwards, and bounded.
import { voxels } from "./api.js";

const SLAB_BYTES = 8 * 2 ** 20;
export const MOST_BYTES = 640 * 2 ** 20;
const AT_ONCE = 3;

export class Scan {
  constructor(about, changed) {
    this.about = about;
    [this.depth, this.height, this.width] = about.shape_zyx;
    this.spacing = about.spacing_zyx_mm;
    this.perSlab = Math.max(1, Math.floor(SLAB_BYTES / (2 * this.height * this.width)));
    this.slabs = new Map();
    this.coming = new Map();
    this.changed = changed;
    this.closed = false;
    this.received = 0;
    const slab = this.perSlab * this.height * this.width * 2;
    this.mostSlabs = Math.max(4, Math.floor(MOST_BYTES / slab));
    this.count = Math.ceil(this.depth / this.perSlab);
  }

  get whole() {
    return this.count <= this.mostSlabs;
  }

  get loaded() {
    return this.slabs.size / this.count;
  }

  // Voxels of a slice (Y * X); null while they are on their way.
  slice(z) {
    const number = Math.floor(z / this.perSlab);
    const slab = this.slabs.get(number);
    if (slab === undefined) {
      if (!this.whole) this.fetch(number);
      return null;
    }
    if (!this.whole) {
      this.slabs.delete(number);
      this.slabs.set(number, slab);
    }
    const size = this.height * this.width;
    const start = (z - number * this.perSlab) * size;
    return slab.subarray(start, start + size);
  }

  intensity(x, y, z) {
    const slice = this.slice(z);
    return slice === null ? null : slice[y * this.width + x] * this.about.slope + this.about.intercept;
  }

  // The slab of a slice first, then its neighbours, until all of them are there.
  async load(z) {
    const middle = Math.floor(z / this.perSlab);
    await this.fetch(middle);
    if (!this.whole) return;
    const rest = [...Array(this.count).keys()].sort((a, b) => Math.abs(a - middle) - Math.abs(b - middle));
    const worker = async () => {
      while (rest.length > 0 && !this.closed) await this.fetch(rest.shift());
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
  }

  fetch(number) {
    if (this.slabs.has(number)) return Promise.resolve();
    if (!this.coming.has(number)) {
      const first = number * this.perSlab;
      const slab = voxels(this.about.scan, first, Math.min(this.perSlab, this.depth - first));
      this.coming.set(
        number,
        slab
          .then((values) => {
            if (this.closed) return;
            this.slabs.set(number, values);
            this.received++;
            while (this.slabs.size > this.mostSlabs) this.slabs.delete(this.slabs.keys().next().value);
            this.changed();
          })
          .finally(() => this.coming.delete(number)),
      );
    }
    return this.coming.get(number);
  }

  close() {
    this.closed = true;
    this.slabs.clear();
  }
}

// A plane through the scan on a canvas: voxels in a window, masks as outlines, exact to the pixel.

const COLOURS = { mask: "#06d6a0", original: "#ff8fab", truth: "#4cc9f0", cross: "rgba(255,255,255,.35)" };
const EDGES = { axial: "RLAP", coronal: "RLHF", sagittal: "APHF" };

export class Plane {
  constructor(canvas, kind) {
    this.canvas = canvas;
    this.kind = kind;
    this.paper = document.createElement("canvas");
    this.painted = null;
    this.paths = new Map();
    this.zoom = 1;
    this.pan = [0, 0];
  }

  // Columns, rows, and their sizes in mm.
  extent(scan) {
    const [dz, dy, dx] = scan.spacing;
    if (this.kind === "axial") return [scan.width, scan.height, dx, dy];
    return this.kind === "coronal" ? [scan.width, scan.depth, dx, dz] : [scan.height, scan.depth, dy, dz];
  }

  // How the plane lies on the canvas: scale of a column and a row, and where it begins.
  layout(scan) {
    const [columns, rows, across, down] = this.extent(scan);
    const fit = Math.min(this.canvas.width / (columns * across), this.canvas.height / (rows * down)) * this.zoom;
    const [sx, sy] = [fit * across, fit * down];
    const x = (this.canvas.width - columns * sx) / 2 + this.pan[0];
    const y = (this.canvas.height - rows * sy) / 2 + this.pan[1];
    return { sx, sy, x, y, columns, rows };
  }

  resize() {
    const box = this.canvas.parentElement.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [Math.max(1, Math.round(box.width * ratio)), Math.max(1, Math.round(box.height * ratio))];
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
  }

  // Column and row under a point of the page, with fractions; rows of coronal and sagittal planes count from the feet.
  at(scan, clientX, clientY) {
    const box = this.canvas.getBoundingClientRect();
    const { sx, sy, x, y, rows } = this.layout(scan);
    const column = (((clientX - box.left) * this.canvas.width) / box.width - x) / sx;
    const row = (((clientY - box.top) * this.canvas.height) / box.height - y) / sy;
    return [column, this.kind === "axial" ? row : rows - row];
  }

  draw(scan, cross, window, masks) {
    this.resize();
    const context = this.canvas.getContext("2d");
    context.fillStyle = "#000";
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    const place = this.layout(scan);
    this.paint(scan, cross, window, place);
    context.imageSmoothingEnabled = place.sx < 2;
    context.drawImage(this.paper, place.x, place.y, place.columns * place.sx, place.rows * place.sy);
    for (const { mask, colour, dashed } of masks) this.outline(context, place, mask, cross, COLOURS[colour], dashed);
    this.cross(context, place, cross);
    this.letters(context);
    return { context, place };
  }

  // Where the plane lies: only what changes that is painted and outlined anew.
  depth(cross) {
    return { axial: cross[2], coronal: cross[1], sagittal: cross[0] }[this.kind];
  }

  paint(scan, cross, [low, high], { columns, rows }) {
    const key = [scan.about.scan, this.depth(cross), low, high, scan.received].join();
    if (key === this.painted) return;
    this.painted = key;
    if (this.paper.width !== columns || this.paper.height !== rows || this.image === undefined) {
      this.paper.width = columns;
      this.paper.height = rows;
      this.image = new ImageData(columns, rows);
      this.pixels = new Uint32Array(this.image.data.buffer);
    }
    const scale = (255 * scan.about.slope) / (high - low);
    const offset = ((scan.about.intercept - low) * 255) / (high - low) + 0.5;
    const grey = (stored) => {
      const value = stored * scale + offset;
      const byte = value <= 0 ? 0 : value >= 255 ? 255 : value | 0;
      return 0xff000000 | (byte << 16) | (byte << 8) | byte;
    };
    const pixels = this.pixels;
    if (this.kind === "axial") {
      const slice = scan.slice(cross[2]);
      if (slice === null) pixels.fill(0xff000000);
      else for (let i = 0; i < pixels.length; i++) pixels[i] = grey(slice[i]);
    } else {
      for (let z = 0; z < rows; z++) {
        const slice = scan.whole ? scan.slice(z) : null;
        const start = (rows - 1 - z) * columns;
        if (slice === null) pixels.fill(0xff000000, start, start + columns);
        else if (this.kind === "coronal") {
          const from = cross[1] * scan.width;
          for (let x = 0; x < columns; x++) pixels[start + x] = grey(slice[from + x]);
        } else for (let y = 0; y < columns; y++) pixels[start + y] = grey(slice[y * scan.width + cross[0]]);
      }
    }
    this.paper.getContext("2d").putImageData(this.image, 0, 0);
  }

  // The outline runs along the edges between voxels of the mask and the others.
  outline(context, place, mask, cross, colour, dashed) {
    if (mask === null || mask.empty) return;
    const key = [this.depth(cross), ...Object.values(place)].join();
    let kept = this.paths.get(colour);
    if (kept === undefined || kept.mask !== mask || kept.key !== key) {
      kept = { mask, key, ...this.trace(place, mask, cross) };
      this.paths.set(colour, kept);
    }
    const { edges, fill } = kept;
    context.save();
    if (!dashed) {
      context.globalAlpha = 0.18;
      context.fillStyle = colour;
      context.fill(fill);
      context.globalAlpha = 1;
    }
    context.strokeStyle = colour;
    context.lineWidth = 1.5 * (window.devicePixelRatio || 1);
    if (dashed) context.setLineDash([5, 4]);
    context.stroke(edges);
    context.restore();
  }

  trace({ sx, sy, x, y, rows }, mask, [cx, cy, cz]) {
    const axial = this.kind === "axial";
    const inside = axial
      ? (c, r) => mask.at(cz, r, c)
      : this.kind === "coronal"
        ? (c, r) => mask.at(rows - 1 - r, cy, c)
        : (c, r) => mask.at(rows - 1 - r, c, cx);
    const [oz, oy, ox] = mask.origin;
    const [nz, ny, nx] = mask.shape;
    const [c0, c1] = this.kind === "sagittal" ? [oy, oy + ny] : [ox, ox + nx];
    const [r0, r1] = axial ? [oy, oy + ny] : [rows - oz - nz, rows - oz];
    const edges = new Path2D();
    const fill = new Path2D();
    for (let r = r0; r <= r1; r++) {
      let begun = -1;
      for (let c = c0; c <= c1; c++) {
        const here = inside(c, r);
        if (here !== inside(c, r - 1)) line(edges, x + c * sx, y + r * sy, x + (c + 1) * sx, y + r * sy);
        if (here !== inside(c - 1, r)) line(edges, x + c * sx, y + r * sy, x + c * sx, y + (r + 1) * sy);
        if (here && begun < 0) begun = c;
        if (!here && begun >= 0) {
          fill.rect(x + begun * sx, y + r * sy, (c - begun) * sx, sy);
          begun = -1;
        }
      }
    }
    return { edges, fill };
  }

  cross(context, { sx, sy, x, y, columns, rows }, [cx, cy, cz]) {
    if (this.kind === "axial") return;
    const column = this.kind === "coronal" ? cx : cy;
    context.strokeStyle = COLOURS.cross;
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(x + (column + 0.5) * sx, y);
    context.lineTo(x + (column + 0.5) * sx, y + rows * sy);
    context.moveTo(x, y + (rows - cz - 0.5) * sy);
    context.lineTo(x + columns * sx, y + (rows - cz - 0.5) * sy);
    context.stroke();
  }

  letters(context) {
    const [left, right, top, bottom] = EDGES[this.kind];
    const { width, height } = this.canvas;
    const size = 13 * (window.devicePixelRatio || 1);
    context.font = `600 ${size}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineWidth = 3;
    context.strokeStyle = "#000";
    context.fillStyle = "#e8eaed";
    for (const [text, x, y] of [
      [left, size, height / 2],
      [right, width - size, height / 2],
      [top, width / 2, size],
      [bottom, width / 2, height - size],
    ]) {
      context.strokeText(text, x, y);
      context.fillText(text, x, y);
    }
  }
}

function line(path, x1, y1, x2, y2) {
  path.moveTo(x1, y1);
  path.lineTo(x2, y2);
}

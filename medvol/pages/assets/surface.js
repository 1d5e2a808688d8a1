// The surface of a mask by surface nets: one vertex a cell that the surface crosses, smoothed within its cell.
const SMOOTHINGS = 12;

// The box of the mask, with one voxel of room on every side, as [low, high) for x, y, z.
function boxOf(mask, [depth, height, width]) {
  const low = [width, height, depth];
  const high = [0, 0, 0];
  for (let z = 0, i = 0; z < depth; z++) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++, i++) {
        if (mask[i] === 0) continue;
        if (x < low[0]) low[0] = x;
        if (y < low[1]) low[1] = y;
        if (z < low[2]) low[2] = z;
        if (x >= high[0]) high[0] = x + 1;
        if (y >= high[1]) high[1] = y + 1;
        if (z >= high[2]) high[2] = z + 1;
      }
    }
  }
  return [low.map((v) => v - 1), high];
}

// Vertices in voxels (x, y, z) and triangles; the border of the scan counts as outside, so the surface is closed.
function surfaceOf(mask, shape) {
  const [depth, height, width] = shape;
  const inside = (x, y, z) =>
    x >= 0 && y >= 0 && z >= 0 && x < width && y < height && z < depth && mask[(z * height + y) * width + x] > 0;
  const [low, high] = boxOf(mask, shape);
  const size = high.map((v, k) => v - low[k]);
  const ids = new Int32Array(size[0] * size[1] * size[2]).fill(-1);
  const idOf = (x, y, z) => ((z - low[2]) * size[1] + (y - low[1])) * size[0] + (x - low[0]);
  const cells = [];
  for (let z = low[2]; z < high[2]; z++) {
    for (let y = low[1]; y < high[1]; y++) {
      for (let x = low[0]; x < high[0]; x++) {
        let corners = 0;
        for (let k = 0; k < 8; k++) corners += inside(x + (k & 1), y + ((k >> 1) & 1), z + (k >> 2)) ? 1 : 0;
        if (corners === 0 || corners === 8) continue;
        ids[idOf(x, y, z)] = cells.length / 3;
        cells.push(x, y, z);
      }
    }
  }
  const quads = quadsOf(cells, inside, (x, y, z) => ids[idOf(x, y, z)]);
  return { points: smooth(Float32Array.from(cells), quads), triangles: split(quads) };
}

// A quad for every pair of neighbours of which one is inside, over the four cells around their edge.
function quadsOf(cells, inside, vertex) {
  const quads = [];
  for (let i = 0; i < cells.length; i += 3) {
    const [x, y, z] = [cells[i], cells[i + 1], cells[i + 2]];
    const here = inside(x, y, z);
    const add = (there, a, b, c) => {
      if (here === there) return;
      quads.push(...(here ? [i / 3, a, b, c] : [i / 3, c, b, a]));
    };
    add(inside(x + 1, y, z), vertex(x, y - 1, z), vertex(x, y - 1, z - 1), vertex(x, y, z - 1));
    add(inside(x, y + 1, z), vertex(x, y, z - 1), vertex(x - 1, y, z - 1), vertex(x - 1, y, z));
    add(inside(x, y, z + 1), vertex(x - 1, y, z), vertex(x - 1, y - 1, z), vertex(x, y - 1, z));
  }
  return quads;
}

function smooth(cells, quads) {
  let points = cells.map((v) => v + 0.5);
  for (let round = 0; round < SMOOTHINGS; round++) {
    const sums = new Float32Array(points.length);
    const counts = new Uint16Array(points.length / 3);
    for (let q = 0; q < quads.length; q += 4) {
      for (let k = 0; k < 4; k++) {
        const [a, b] = [quads[q + k], quads[q + ((k + 1) % 4)]];
        for (let axis = 0; axis < 3; axis++) {
          sums[3 * a + axis] += points[3 * b + axis];
          sums[3 * b + axis] += points[3 * a + axis];
        }
        counts[a]++;
        counts[b]++;
      }
    }
    points = points.map((old, i) => {
      const count = counts[Math.floor(i / 3)];
      return count === 0 ? old : Math.min(Math.max(sums[i] / count, cells[i]), cells[i] + 1);
    });
  }
  return points;
}

function split(quads) {
  const triangles = [];
  for (let q = 0; q < quads.length; q += 4) {
    const [a, b, c, d] = quads.slice(q, q + 4);
    triangles.push(a, b, c, a, c, d);
  }
  return Uint32Array.from(triangles);
}

// Voxels (x, y, z) to world millimetres by the affine of a NIfTI header, rows of four floats from byte 280.
function toWorld(points, header) {
  const view = new DataView(header);
  const affine = Array.from({ length: 12 }, (_, i) => view.getFloat32(280 + 4 * i, true));
  const world = new Float32Array(points.length);
  for (let i = 0; i < points.length; i += 3) {
    for (let row = 0; row < 3; row++) {
      const [a, b, c, d] = affine.slice(4 * row, 4 * row + 4);
      world[i + row] = a * points[i] + b * points[i + 1] + c * points[i + 2] + d;
    }
  }
  return world;
}

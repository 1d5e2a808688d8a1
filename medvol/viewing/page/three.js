// The mask in 3D by NiiVue, which is loaded once, when there is a mask to show.

const MOST = 128;
const MARGIN = 2;
let viewer = null;
let wanted = null;

function load() {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "page/niivue.js";
    script.onload = () => resolve(window.niivue);
    script.onerror = () => reject(new Error("the 3D view cannot be loaded"));
    document.head.append(script);
  });
}

async function start(place) {
  const niivue = await load();
  const canvas = document.createElement("canvas");
  canvas.setAttribute("aria-label", "The mask in 3D");
  place.append(canvas);
  const view = new niivue.Niivue({
    dragAndDropEnabled: false,
    logLevel: "error",
    backColor: [0, 0, 0, 1],
    show3Dcrosshair: false,
    isOrientCube: false,
    isOrientationTextVisible: false,
  });
  await view.attachToCanvas(canvas);
  view.addColormap("medvolMask", { R: [0, 6], G: [0, 214], B: [0, 160], A: [0, 255], I: [0, 255] });
  view.setSliceType(view.sliceTypeRender);
  view.setRenderAzimuthElevation(150, 15);
  return { niivue, view };
}

export function hasWebGL() {
  return Boolean(document.createElement("canvas").getContext("webgl2"));
}

// Another mask may be wanted while this one is made ready; then this one is not shown. Without a mask nothing is.
export async function show(place, scan, mask) {
  wanted = mask;
  if (mask === null && viewer === null) return;
  viewer ??= start(place);
  const { niivue, view } = await viewer;
  const file = mask === null || mask.empty ? null : nifti(thin(scan, mask)).buffer;
  const volume = file && (await niivue.NVImage.new(file, "mask.nii", "medvolMask", 1, null, 0, 1));
  if (wanted !== mask) return;
  for (const earlier of [...view.volumes]) view.removeVolume(earlier);
  if (volume === null) return;
  view.addVolume(volume);
  await view.setVolumeRenderIllumination(0.6);
  view.drawScene();
}

// The mask in its bounding box, with a margin, on at most 128 voxels an axis; a voxel is set when one of those it stands
// for is.
function thin(scan, mask) {
  const step = mask.shape.map((n) => Math.ceil(n / (MOST - 2 * MARGIN)));
  const shape = mask.shape.map((n, axis) => Math.ceil(n / step[axis]) + 2 * MARGIN);
  const values = new Uint8Array(shape[0] * shape[1] * shape[2]);
  const [depth, height, width] = mask.shape;
  let place = 0;
  for (let z = 0; z < depth; z++)
    for (let y = 0; y < height; y++) {
      const [a, b] = [Math.floor(z / step[0]) + MARGIN, Math.floor(y / step[1]) + MARGIN];
      const row = (a * shape[1] + b) * shape[2] + MARGIN;
      for (let x = 0; x < width; x++) if (mask.values[place++]) values[row + Math.floor(x / step[2])] = 1;
    }
  return { values, shape, spacing: scan.spacing.map((mm, axis) => mm * step[axis]) };
}

// A NIfTI file of bytes; columns run to the patient's left and rows to the back, so both axes of the affine are negative.
function nifti({ values, shape, spacing }) {
  const file = new Uint8Array(352 + values.length);
  const header = new DataView(file.buffer);
  const [nz, ny, nx] = shape;
  const [dz, dy, dx] = spacing;
  header.setInt32(0, 348, true);
  [3, nx, ny, nz, 1, 1, 1, 1].forEach((n, i) => header.setInt16(40 + 2 * i, n, true));
  header.setInt16(70, 2, true);
  header.setInt16(72, 8, true);
  [1, dx, dy, dz, 1, 1, 1, 1].forEach((mm, i) => header.setFloat32(76 + 4 * i, mm, true));
  header.setFloat32(108, 352, true);
  header.setFloat32(112, 1, true);
  header.setUint8(123, 2);
  header.setInt16(254, 1, true);
  [[-dx, 0, 0, 0], [0, -dy, 0, 0], [0, 0, dz, 0]].forEach((row, i) =>
    row.forEach((value, j) => header.setFloat32(280 + 16 * i + 4 * j, value, true)),
  );
  [110, 43, 49, 0].forEach((byte, i) => header.setUint8(344 + i, byte));
  file.set(values, 352);
  return file;
}

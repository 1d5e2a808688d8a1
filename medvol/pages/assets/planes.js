// Planes and 3D by NiiVue: one canvas and one program for the whole page; it moves to the answer that asks for it.
const CLEAR = "medvolScan"; // grey in the planes, nothing in 3D
const MASK = "medvolMask";
const TRUTH = "medvolTruth";
const MASK_RGBA = new Uint8Array([6, 214, 160, 255]);
const TRUTH_RGBA = new Uint8Array([255, 122, 184, 255]);
const TRUTH_OPACITY = 0.6; // of the true surface, behind which the mask's is seen
const shown = { niivue: null, view: null, canvas: null, section: null };

function hasWebGL() {
  return Boolean(document.createElement("canvas").getContext("webgl2"));
}

// The script's hash is part of the page's content security policy.
async function loadNiivue() {
  const script = document.createElement("script");
  script.textContent = new TextDecoder().decode(await unpack("niivue"));
  document.head.append(script);
  return window.niivue;
}

async function openPlanes(section) {
  if (shown.section !== null) setOpened(shown.section, false);
  shown.section = section;
  try {
    await drawPlanes(section);
  } catch (error) {
    setOpened(section, false);
    tell(section, `Planes and 3D could not be drawn: ${error.message}. The pictures and the text are complete.`);
  }
}

// Somebody may ask for another answer while NiiVue or the stack of this one comes; then this one is not shown.
async function drawPlanes(section) {
  const niivue = await (shown.niivue ??= loadNiivue());
  if (shown.section !== section) return;
  if (shown.canvas === null) {
    shown.canvas = document.createElement("canvas");
    shown.canvas.tabIndex = 0;
    shown.canvas.setAttribute("role", "img");
    shown.canvas.setAttribute("aria-label", "Axial, coronal and sagittal planes through the mask, and its surface in 3D");
  }
  section.querySelector(".stage").append(shown.canvas);
  setOpened(section, true);
  await showStack(niivue, await (shown.view ??= makeView(niivue)), section);
}

function tell(section, text) {
  const hint = section.querySelector(".hint");
  hint.textContent = text;
  hint.hidden = false;
}

function setOpened(section, opened) {
  section.classList.toggle("opened", opened);
  section.querySelector(".open").hidden = opened;
  section.querySelector(".tools").hidden = !opened;
  section.querySelector(".hint").hidden = !opened;
  delete section.dataset.ready;
}

async function makeView(niivue) {
  const view = new niivue.Niivue({
    isRadiologicalConvention: true,
    dragAndDropEnabled: false,
    logLevel: "warn",
    backColor: [0, 0, 0, 1],
    crosshairColor: [1, 0.82, 0.4, 0.6],
    crosshairWidth: 0.25,
    crosshairWidthUnit: "percent",
    fontColor: [0.95, 0.95, 0.95, 1],
    fontMinPx: 14,
    showAllOrientationMarkers: true,
    show3Dcrosshair: false,
    multiplanarShowRender: niivue.SHOW_RENDER.ALWAYS,
    multiplanarLayout: niivue.MULTIPLANAR_TYPE.GRID,
    renderOverlayBlend: 0,
    meshThicknessOn2D: 0,
    tileMargin: 4,
  });
  await view.attachToCanvas(shown.canvas);
  // While a browser prints or lays the page out anew, the canvas may have no width for a moment, and tiles less than none.
  const draw = view.drawScene.bind(view);
  view.drawScene = () => (shown.canvas.clientWidth > 0 ? draw() : undefined);
  view.addColormap(CLEAR, { R: [0, 255], G: [0, 255], B: [0, 255], A: [0, 0], I: [0, 255] });
  view.addColormap(MASK, { R: [0, 6], G: [0, 214], B: [0, 160], A: [0, 255], I: [0, 255] });
  view.addColormap(TRUTH, { R: [0, 255], G: [0, 122], B: [0, 184], A: [0, 255], I: [0, 255] });
  view.setSliceType(view.sliceTypeMultiplanar);
  return view;
}

async function showStack(niivue, view, section) {
  const stack = JSON.parse(section.closest("article").querySelector(".viewer").dataset.stack);
  const scan = await unpack(stack.scan);
  const masks = [];
  for (const [id, colormap, rgba, opacity] of [
    [stack.truth, TRUTH, TRUTH_RGBA, stack.mask === null ? 1 : TRUTH_OPACITY],
    [stack.mask, MASK, MASK_RGBA, 1],
  ]) {
    if (id !== null) masks.push({ voxels: await unpack(id), colormap, rgba, opacity });
  }
  const volumes = [await niivue.NVImage.new(scan, "scan.nii", CLEAR, 1, null, 0, 255)];
  for (const { voxels, colormap } of masks) {
    volumes.push(await niivue.NVImage.new(voxels, "mask.nii", colormap, 1, null, 0, 1));
  }
  if (shown.section !== section) return;
  for (const mesh of [...view.meshes]) view.removeMesh(mesh);
  for (const volume of [...view.volumes]) view.removeVolume(volume);
  for (const volume of volumes) view.addVolume(volume);
  for (const { voxels, colormap, rgba, opacity } of masks) {
    const { points, triangles } = surfaceOf(new Uint8Array(voxels, 352), stack.shape);
    view.addMesh(new niivue.NVMesh(toWorld(points, voxels), triangles, colormap, rgba, opacity, true, view.gl));
  }
  view.setRenderAzimuthElevation(160, 15);
  view.setScale(1.25);
  showOpacity(view, section);
  showScan3D(view, section);
  moveToEvidence(view, stack, masks[masks.length - 1].voxels);
  section.dataset.ready = "yes";
}

// The crosshair goes to the middle of the first box on the key slice, or of the mask where there is no box.
function moveToEvidence(view, stack, voxels) {
  const middle = toWorld(stack.boxes.length > 0 ? middleOfBox(stack) : middleOf(voxels, stack.shape), voxels);
  view.scene.crosshairPos = view.mm2frac([...middle]);
  view.drawScene();
}

function middleOfBox(stack) {
  const [x1, y1, x2, y2] = stack.boxes[0];
  return [(x1 + x2) / 2 - 0.5, (y1 + y2) / 2 - 0.5, stack.key];
}

function middleOf(voxels, shape) {
  const [low, high] = boxOf(new Uint8Array(voxels, 352), shape);
  return low.map((v, k) => Math.round((v + high[k]) / 2));
}

// The wheel scrolls the page until somebody has clicked into the planes.
function leaveWheel(event) {
  if (document.activeElement !== shown.canvas) event.stopPropagation();
}

function showOpacity(view, section) {
  const opacity = Number(section.querySelector(".opacity").value) / 100;
  for (let k = 1; k < view.volumes.length; k++) view.setOpacity(k, opacity);
}

function showScan3D(view, section) {
  const withScan = section.querySelector(".with-scan").checked;
  view.opts.meshXRay = withScan ? 0.6 : 0;
  view.setColormap(view.volumes[0].id, withScan ? "gray" : CLEAR);
}

function startPlanes() {
  const sections = [...document.querySelectorAll(".planes")];
  const able = "DecompressionStream" in window && sections.length > 0 && hasWebGL();
  for (const section of sections) {
    section.hidden = false;
    if (!able) {
      section.querySelector(".stage").remove();
      tell(section, "This browser cannot draw planes and 3D, which need WebGL 2. The pictures and the text are complete.");
      continue;
    }
    offer(section.querySelector(".open"), () => openPlanes(section));
    section.querySelector(".stage").addEventListener("wheel", leaveWheel, { capture: true });
    // What is set before the answer's own volumes are there is read when they come.
    const change = (show) => async () => {
      const view = await shown.view;
      if (section.dataset.ready) show(view, section);
    };
    section.querySelector(".opacity").addEventListener("input", change(showOpacity));
    section.querySelector(".with-scan").addEventListener("change", change(showScan3D));
  }
  if (able && document.querySelectorAll("article.answer").length === 1) openPlanes(sections[0]);
}

startPlanes();

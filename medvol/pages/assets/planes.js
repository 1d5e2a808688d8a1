// Planes and 3D by NiiVue: one canvas and one program for the whole page; it moves to the answer that asks for it.
const viewerState = { niivue: null, canvas: null, view: null, owner: null };

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

async function openView(section) {
  viewerState.niivue ??= loadNiivue();
  const niivue = await viewerState.niivue;
  giveBack(viewerState.owner);
  viewerState.owner = section;
  if (viewerState.canvas === null) {
    viewerState.canvas = document.createElement("canvas");
    viewerState.canvas.setAttribute("aria-label", "Axial, coronal and sagittal planes and a 3D view of the mask");
    section.querySelector(".stage").append(viewerState.canvas);
    viewerState.view = await startView(niivue);
  } else {
    section.querySelector(".stage").append(viewerState.canvas);
  }
  await showStack(niivue, viewerState.view, section);
}

function giveBack(section) {
  if (section === null) return;
  section.querySelector(".open").hidden = false;
  section.querySelector(".tools").hidden = true;
  section.querySelector(".hint").textContent = "";
  section.classList.remove("opened");
}

async function startView(niivue) {
  const view = new niivue.Niivue({
    isRadiologicalConvention: true,
    dragAndDropEnabled: false,
    logLevel: "warn",
    backColor: [0, 0, 0, 1],
    crosshairColor: [1, 0.82, 0.4, 0.55],
    crosshairWidth: 1,
    fontMinPx: 13,
    show3Dcrosshair: false,
    multiplanarShowRender: niivue.SHOW_RENDER.ALWAYS,
    multiplanarLayout: niivue.MULTIPLANAR_TYPE.AUTO,
    multiplanarEqualSize: true,
    tileMargin: 4,
  });
  await view.attachToCanvas(viewerState.canvas);
  view.addColormap("medvolMask", { R: [0, 6], G: [0, 214], B: [0, 160], A: [0, 255], I: [0, 255] });
  view.setSliceType(view.sliceTypeMultiplanar);
  return view;
}

async function showStack(niivue, view, section) {
  const stack = JSON.parse(section.closest("article").querySelector(".viewer").dataset.stack);
  for (const volume of [...view.volumes]) view.removeVolume(volume);
  const load = async (id, name, colormap, opacity, max) => {
    const volume = await niivue.NVImage.new(await unpack(id), `${name}.nii`, colormap, opacity, null, 0, max);
    view.addVolume(volume);
  };
  await load(stack.scan, "scan", "gray", 1, 255);
  await load(stack.mask, "mask", "medvolMask", opacityOf(section), 1);
  view.setRenderAzimuthElevation(150, 15);
  moveTo(view, stack);
  setRender(view, section);
  section.querySelector(".open").hidden = true;
  section.querySelector(".tools").hidden = false;
  section.querySelector(".hint").textContent =
    "Click or drag to move the crosshair, turn the wheel to go through a plane, drag the 3D view to turn it.";
  section.classList.add("opened");
}

// The crosshair goes to the middle of the boxes on the key slice.
function moveTo(view, stack) {
  if (stack.key === null || stack.boxes.length === 0) return;
  const [x1, y1, x2, y2] = stack.boxes[0];
  const voxel = [(x1 + x2) / 2 - 0.5, (y1 + y2) / 2 - 0.5, stack.key];
  view.scene.crosshairPos = view.vox2frac(voxel.map((v, i) => Math.round(Math.min(v, stack.shape[2 - i] - 1))));
  view.drawScene();
}

function opacityOf(section) {
  return Number(section.querySelector(".opacity").value) / 100;
}

function setRender(view, section) {
  view.setVolumeRenderIllumination(0.6);
  view.drawScene();
}

const sections = [...document.querySelectorAll(".planes")];
const ready = "DecompressionStream" in window && sections.length > 0;
const drawn = ready && hasWebGL();
for (const section of sections) {
  section.hidden = false;
  if (!drawn) {
    section.querySelector(".stage").remove();
    section.querySelector(".hint").textContent =
      "This browser has no WebGL 2, so planes and 3D are not shown. The pictures and the text are complete.";
    continue;
  }
  const open = () => openView(section);
  offer(section.querySelector(".open"), open);
  section.querySelector(".opacity").addEventListener("input", () => {
    viewerState.view.setOpacity(1, opacityOf(section));
  });
  section.querySelector(".only-mask").addEventListener("change", () => setRender(viewerState.view, section));
}
if (drawn && document.querySelectorAll("article.answer").length === 1) openView(sections[0]);

// Slices of a scan with the mask's outline and the boxes; arrow keys, a slider, and no need of WebGL.
const COLOURS = { box: "#ffd166", mask: "#06d6a0", truth: "#ff7ab8", text: "#f2f2f2" };
const LONGEST_PX = 900;

function sliceView(root) {
  const stack = JSON.parse(root.dataset.stack);
  const [depth, height, width] = stack.shape;
  const [, spacingY, spacingX] = stack.spacing;
  const canvas = root.querySelector("canvas");
  const slider = root.querySelector("input[type=range]");
  const outline = root.querySelector(".with-mask input");
  const scale = LONGEST_PX / Math.max(width * spacingX, height * spacingY);
  canvas.width = Math.round(width * spacingX * scale);
  canvas.height = Math.round(height * spacingY * scale);
  const toX = canvas.width / width;
  const toY = canvas.height / height;
  const paper = Object.assign(document.createElement("canvas"), { width, height });
  const pixels = new ImageData(width, height);
  let scan = null;
  let mask = null;
  let truth = null;

  function drawScan(z) {
    const start = z * width * height;
    for (let i = 0; i < width * height; i++) {
      pixels.data.fill(scan[start + i], 4 * i, 4 * i + 3);
      pixels.data[4 * i + 3] = 255;
    }
    paper.getContext("2d").putImageData(pixels, 0, 0);
    canvas.getContext("2d").drawImage(paper, 0, 0, canvas.width, canvas.height);
  }

  // The outline runs along the edges between pixels of the mask and the others.
  function drawOutline(context, z, voxels, colour) {
    const inside = (x, y) =>
      x >= 0 && y >= 0 && x < width && y < height && voxels[(z * height + y) * width + x] > 0;
    context.beginPath();
    for (let y = 0; y <= height; y++) {
      for (let x = 0; x <= width; x++) {
        if (inside(x, y) !== inside(x - 1, y)) {
          context.moveTo(x * toX, y * toY);
          context.lineTo(x * toX, (y + 1) * toY);
        }
        if (inside(x, y) !== inside(x, y - 1)) {
          context.moveTo(x * toX, y * toY);
          context.lineTo((x + 1) * toX, y * toY);
        }
      }
    }
    context.strokeStyle = colour;
    context.stroke();
  }

  function drawLetters(context) {
    context.font = "600 22px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.strokeStyle = "#000";
    context.fillStyle = COLOURS.text;
    const middle = [canvas.width / 2, canvas.height / 2];
    const places = [["R", 18, middle[1]], ["L", canvas.width - 18, middle[1]]];
    places.push(["A", middle[0], 18], ["P", middle[0], canvas.height - 18]);
    for (const [letter, x, y] of places) {
      context.lineWidth = 4;
      context.strokeText(letter, x, y);
      context.fillText(letter, x, y);
    }
  }

  function draw() {
    const z = Number(slider.value);
    const context = canvas.getContext("2d");
    drawScan(z);
    context.lineWidth = 2.5;
    if (truth && outline.checked) drawOutline(context, z, truth, COLOURS.truth);
    if (mask && outline.checked) drawOutline(context, z, mask, COLOURS.mask);
    context.strokeStyle = COLOURS.box;
    for (const { boxes } of [stack, ...(stack.further ?? [])].filter(({ key }) => key === z)) {
      for (const [x1, y1, x2, y2] of boxes) {
        context.strokeRect(x1 * toX, y1 * toY, (x2 - x1) * toX, (y2 - y1) * toY);
      }
    }
    drawLetters(context);
    const text = nameSlice(stack, z);
    root.querySelector("output").textContent = text;
    slider.setAttribute("aria-valuetext", text);
  }

  slider.min = 0;
  slider.max = depth - 1;
  const keys = keysOf(stack);
  slider.value = keys[0] ?? Math.floor(depth / 2);
  slider.addEventListener("input", draw);
  outline.addEventListener("change", draw);
  root.querySelector(".with-mask").hidden = stack.mask === null && stack.truth === null;
  canvas.addEventListener("keydown", (event) => step(event, slider, depth));
  // Of several key slices the next one towards the head, and from the last the first.
  const nextKey = () => [...keys].sort((a, b) => a - b).find((key) => key > Number(slider.value)) ?? Math.min(...keys);
  if (keys.length > 0) {
    offer(root.querySelector(".to-key"), () => { slider.value = nextKey(); draw(); });
  }
  return async () => {
    scan = await voxelsOf(stack.scan);
    mask = stack.mask === null ? null : await voxelsOf(stack.mask);
    truth = stack.truth === null ? null : await voxelsOf(stack.truth);
    root.hidden = false;
    draw();
  };
}

function keysOf(stack) {
  return stack.key === null ? [] : [stack, ...(stack.further ?? [])].map(({ key }) => key);
}

function nameSlice(stack, z) {
  const first = stack.start[0] + z * stack.factor[0];
  const last = Math.min(first + stack.factor[0], stack.scanShape[0]) - 1;
  const name = first === last ? `slice ${first}` : `slices ${first}–${last}`;
  return `${name} of 0–${stack.scanShape[0] - 1}${keysOf(stack).includes(z) ? ", key slice" : ""}`;
}

function step(event, slider, depth) {
  const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10 };
  const ends = { Home: -depth, End: depth };
  const by = steps[event.key] ?? ends[event.key];
  if (by === undefined) return;
  event.preventDefault();
  slider.value = Number(slider.value) + by;
  slider.dispatchEvent(new Event("input"));
}

// A stack is unpacked when it comes near the screen, so a page of many answers opens at once.
if ("DecompressionStream" in window) {
  const waiting = new Map();
  const watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      watch.unobserve(target);
      waiting.get(target)();
    }
  }, { rootMargin: "800px" });
  for (const root of document.querySelectorAll(".viewer")) {
    const article = root.closest("article");
    waiting.set(article, sliceView(root));
    watch.observe(article);
  }
}

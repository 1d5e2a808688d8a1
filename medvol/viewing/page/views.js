// The three planes: what they show, and what the pointer does in them.
import { nearest } from "./anchors.js";
import { between, boxAt, cursorOf, dragged, drawBoxes } from "./boxes.js";
import { Plane } from "./plane.js";

const WHOLE_BOX = { left: false, right: false, top: false, bottom: false };

export class Views {
  // `desk` holds what is shown and hears what the pointer changes.
  constructor(desk) {
    this.desk = desk;
    this.planes = ["axial", "coronal", "sagittal"].map((kind) => new Plane(document.getElementById(kind), kind));
    this.axial = this.planes[0];
    this.cross = [0, 0, 0];
    this.chosen = 0;
    this.tool = "move";
    this.preview = null;
    this.pointers = new Map();
    this.waiting = false;
    for (const plane of this.planes) this.listen(plane);
    new ResizeObserver(() => this.redraw()).observe(document.getElementById("views"));
  }

  get scan() {
    return this.desk.scan;
  }

  get boxes() {
    return this.preview ?? this.near?.boxes_px ?? [];
  }

  // Of several anchors the one that lies nearest is shown.
  get near() {
    return nearest(this.desk.anchor, this.cross[2]);
  }

  get onKey() {
    return this.near?.key_slice === this.cross[2];
  }

  // A box that the pointer holds stays in its answer and on its slice until it is put; see also `letGo`.
  get holdsBox() {
    return this.hold?.kind === "box" || this.hold?.kind === "new";
  }

  // What the pointer has begun comes to nothing.
  letGo() {
    this.hold = undefined;
    this.preview = null;
  }

  goTo(z) {
    if (!this.scan || this.holdsBox) return;
    this.cross[2] = Math.max(0, Math.min(this.scan.depth - 1, Math.round(z)));
    this.desk.moved();
    this.redraw();
  }

  step(slices) {
    this.goTo(this.cross[2] + slices);
  }

  center() {
    for (const plane of this.planes) {
      plane.zoom = 1;
      plane.pan = [0, 0];
    }
    this.redraw();
  }

  redraw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      if (!this.scan) return;
      for (const plane of this.planes) {
        const drawn = plane.draw(this.scan, this.cross, this.desk.window, this.desk.masks());
        if (plane === this.axial) drawBoxes(drawn.context, drawn.place, this.boxes, this.chosen, this.onKey);
      }
      document.body.dataset.drawn = String(this.cross[2]);
    });
  }

  listen(plane) {
    const { canvas } = plane;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      if (!this.scan || this.holdsBox) return;
      if (event.ctrlKey) this.zoomAt(plane, event.deltaY < 0 ? 1.15 : 1 / 1.15);
      else this.turn(plane, Math.sign(event.deltaY));
    }, { passive: false });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("pointerdown", (event) => this.down(plane, event));
    canvas.addEventListener("pointermove", (event) => this.move(plane, event));
    canvas.addEventListener("pointerup", (event) => this.up(plane, event));
    canvas.addEventListener("pointercancel", (event) => this.up(plane, event, true));
    canvas.addEventListener("pointerleave", () => this.desk.over(null));
  }

  turn(plane, steps) {
    const axis = { axial: 2, coronal: 1, sagittal: 0 }[plane.kind];
    if (axis === 2) return this.step(-steps);
    const most = axis === 1 ? this.scan.height : this.scan.width;
    this.cross[axis] = Math.max(0, Math.min(most - 1, this.cross[axis] + steps));
    this.redraw();
  }

  zoomAt(plane, factor) {
    plane.zoom = Math.max(1, Math.min(12, plane.zoom * factor));
    if (plane.zoom === 1) plane.pan = [0, 0];
    this.redraw();
  }

  down(plane, event) {
    if (!this.scan) return;
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (this.pointers.size === 2) return this.pinch(plane);
    if (this.hold) return;
    plane.canvas.setPointerCapture(event.pointerId);
    plane.canvas.focus({ preventScroll: true });
    const at = plane.at(this.scan, event.clientX, event.clientY);
    const anchor = this.onKey ? this.near : undefined;
    const start = { at, x: event.clientX, y: event.clientY, plane, id: event.pointerId, anchor };
    if (event.button === 1) this.hold = { ...start, kind: "pan", pan: [...plane.pan] };
    else if (event.button === 2 || event.shiftKey || this.tool === "window")
      this.hold = { ...start, kind: "window", window: [...this.desk.window] };
    else if (plane !== this.axial) {
      this.hold = { ...start, kind: "cross" };
      this.aim(plane, at);
    } else if (!this.desk.mayChange) return;
    else if (this.tool === "add") this.hold = this.desk.mayAdd() ? { ...start, kind: "new" } : undefined;
    else {
      const found = this.find(at);
      if (found === null) {
        this.hold = { ...start, kind: "cross" };
        this.aim(plane, at);
      } else {
        this.chosen = found[0];
        this.hold = { ...start, kind: "box", held: found[1], boxes: this.boxes };
      }
    }
    this.redraw();
  }

  // Two fingers zoom and pan; what one of them had begun is let go.
  pinch(plane) {
    this.letGo();
    this.hold = { kind: "pinch", plane, zoom: plane.zoom, pan: [...plane.pan], ...spread(this.pointers) };
  }

  move(plane, event) {
    if (!this.scan) return;
    if (this.pointers.has(event.pointerId)) this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (this.hold?.kind === "pinch") {
      const ratio = window.devicePixelRatio || 1;
      const { far, x, y } = spread(this.pointers);
      const { plane: pinched } = this.hold;
      pinched.zoom = Math.max(1, Math.min(12, (this.hold.zoom * far) / this.hold.far));
      pinched.pan = pinched.zoom === 1 ? [0, 0] : [
        this.hold.pan[0] + (x - this.hold.x) * ratio,
        this.hold.pan[1] + (y - this.hold.y) * ratio,
      ];
      return this.redraw();
    }
    const at = plane.at(this.scan, event.clientX, event.clientY);
    if (!this.hold || this.hold.id !== event.pointerId) {
      if (plane === this.axial) {
        this.desk.over(at);
        plane.canvas.style.cursor = this.tool === "move" ? cursorOf(this.find(at)) : "crosshair";
      }
      return;
    }
    const { kind, at: from } = this.hold;
    const { width, height } = this.scan;
    if (kind === "box") {
      this.preview = this.hold.boxes.map((box, index) =>
        index === this.chosen ? dragged(box, this.hold.held, at[0] - from[0], at[1] - from[1], width, height) : box,
      );
    } else if (kind === "new") {
      const box = between(from, at, width, height);
      this.preview = box === null ? null : [...(this.hold.anchor?.boxes_px ?? []), box];
      if (box !== null) this.chosen = this.preview.length - 1;
    } else if (kind === "window") this.desk.drag(this.hold.window, event.clientX - this.hold.x, event.clientY - this.hold.y);
    else if (kind === "pan") {
      const ratio = window.devicePixelRatio || 1;
      plane.pan = [
        this.hold.pan[0] + (event.clientX - this.hold.x) * ratio,
        this.hold.pan[1] + (event.clientY - this.hold.y) * ratio,
      ];
    } else this.aim(plane, at);
    this.redraw();
  }

  up(plane, event, cancelled = false) {
    this.pointers.delete(event.pointerId);
    if (this.hold?.kind === "pinch") {
      this.hold = undefined;
      return;
    }
    if (!this.hold || this.hold.id !== event.pointerId) return;
    const { preview: boxes, hold: { kind, anchor } } = this;
    this.letGo();
    if (boxes !== null && !cancelled) {
      if (kind === "new") this.desk.choose("move");
      this.desk.put(boxes, anchor);
    }
    this.redraw();
  }

  find([column, row]) {
    if (!this.onKey) return null;
    return boxAt(this.axial.layout(this.scan), this.boxes, column, row, window.devicePixelRatio || 1);
  }

  aim(plane, [column, row]) {
    const clip = (value, most) => Math.max(0, Math.min(most - 1, Math.floor(value)));
    const { width, height, depth } = this.scan;
    if (plane.kind === "axial") this.cross = [clip(column, width), clip(row, height), this.cross[2]];
    else if (plane.kind === "coronal") this.cross = [clip(column, width), this.cross[1], clip(row, depth)];
    else this.cross = [this.cross[0], clip(column, height), clip(row, depth)];
    this.desk.moved();
  }

  // Move or resize the chosen box by the keyboard.
  nudge(dx, dy, resize) {
    const { boxes } = this;
    if (!this.onKey || boxes[this.chosen] === undefined) return null;
    const held = resize ? { ...WHOLE_BOX, right: dx !== 0, bottom: dy !== 0 } : WHOLE_BOX;
    return boxes.map((box, index) =>
      index === this.chosen ? dragged(box, held, dx, dy, this.scan.width, this.scan.height) : box,
    );
  }
}

// How far two fingers are apart, and the middle between them.
function spread(pointers) {
  const [[a, b], [c, d]] = [...pointers.values()];
  return { far: Math.max(1, Math.hypot(a - c, b - d)), x: (a + c) / 2, y: (b + d) / 2 };
}

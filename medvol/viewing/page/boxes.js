// Boxes on the axial slice: drawn, found under the pointer, moved and resized. Coordinates are pixels of the slice.

const GRIP = 9;
const LEAST = 1;

export function drawBoxes(context, place, boxes, chosen, onKey) {
  const ratio = window.devicePixelRatio || 1;
  boxes.forEach(([x1, y1, x2, y2], index) => {
    const [left, top] = [place.x + x1 * place.sx, place.y + y1 * place.sy];
    const [width, height] = [(x2 - x1) * place.sx, (y2 - y1) * place.sy];
    context.save();
    context.strokeStyle = "#ffd166";
    context.lineWidth = (index === chosen && onKey ? 2.5 : 1.5) * ratio;
    if (!onKey) {
      context.globalAlpha = 0.35;
      context.setLineDash([3, 5]);
    }
    context.strokeRect(left, top, width, height);
    if (index === chosen && onKey) {
      context.fillStyle = "#ffd166";
      const size = 7 * ratio;
      for (const x of [left, left + width / 2, left + width])
        for (const y of [top, top + height / 2, top + height])
          if (x !== left + width / 2 || y !== top + height / 2) context.fillRect(x - size / 2, y - size / 2, size, size);
    }
    context.restore();
  });
}

// The box under a point, and which of its edges are held: [index, {left, top, right, bottom}], or null.
export function boxAt(place, boxes, column, row, ratio) {
  const [near, nearRow] = [(GRIP * ratio) / place.sx, (GRIP * ratio) / place.sy];
  for (let index = boxes.length - 1; index >= 0; index--) {
    const [x1, y1, x2, y2] = boxes[index];
    if (column < x1 - near || column > x2 + near || row < y1 - nearRow || row > y2 + nearRow) continue;
    const held = {
      left: Math.abs(column - x1) <= near,
      right: Math.abs(column - x2) <= near,
      top: Math.abs(row - y1) <= nearRow,
      bottom: Math.abs(row - y2) <= nearRow,
    };
    if (held.left && held.right) held.left = column < (x1 + x2) / 2;
    if (held.left) held.right = false;
    if (held.top && held.bottom) held.top = row < (y1 + y2) / 2;
    if (held.top) held.bottom = false;
    return [index, held];
  }
  return null;
}

export function cursorOf(found) {
  if (found === null) return "crosshair";
  const { left, right, top, bottom } = found[1];
  if ((left && top) || (right && bottom)) return "nwse-resize";
  if ((right && top) || (left && bottom)) return "nesw-resize";
  if (left || right) return "ew-resize";
  return top || bottom ? "ns-resize" : "move";
}

// A box after a drag; it stays in the slice and keeps an area. Whole pixels, as masks have them.
export function dragged([x1, y1, x2, y2], held, dx, dy, width, height) {
  [dx, dy] = [Math.round(dx), Math.round(dy)];
  if (!(held.left || held.right || held.top || held.bottom)) {
    dx = clamp(dx, -x1, width - x2);
    dy = clamp(dy, -y1, height - y2);
    return [x1 + dx, y1 + dy, x2 + dx, y2 + dy];
  }
  return [
    held.left ? clamp(x1 + dx, 0, x2 - LEAST) : x1,
    held.top ? clamp(y1 + dy, 0, y2 - LEAST) : y1,
    held.right ? clamp(x2 + dx, x1 + LEAST, width) : x2,
    held.bottom ? clamp(y2 + dy, y1 + LEAST, height) : y2,
  ];
}

// A new box between two points; null when it has no area.
export function between([a, b], [c, d], width, height) {
  const [x1, x2] = [Math.min(a, c), Math.max(a, c)].map((x) => clamp(Math.round(x), 0, width));
  const [y1, y2] = [Math.min(b, d), Math.max(b, d)].map((y) => clamp(Math.round(y), 0, height));
  return x2 - x1 >= LEAST && y2 - y1 >= LEAST ? [x1, y1, x2, y2] : null;
}

function clamp(value, low, high) {
  return Math.max(low, Math.min(high, value));
}

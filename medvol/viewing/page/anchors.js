// What an answer names: {key_slice, boxes_px}, and `further`, a list of such, where it has several anchors. Each anchor
// lies on another slice. Nothing here changes what it is given.

const SAME_PX = 0.01;

export function anchorIn({ key_slice, boxes_px, further }) {
  return further?.length > 0 ? { key_slice, boxes_px, further } : { key_slice, boxes_px };
}

export function anchorsOf(answer) {
  if (!answer || answer.key_slice === null) return [];
  return [{ key_slice: answer.key_slice, boxes_px: answer.boxes_px }, ...(answer.further ?? [])];
}

// The anchor that lies nearest to a slice; undefined where there is none.
export function nearest(answer, z) {
  const far = (anchor) => Math.abs(anchor.key_slice - z);
  return anchorsOf(answer).reduce((best, anchor) => (best && far(best) <= far(anchor) ? best : anchor), undefined);
}

// The answer with an anchor in place of another one, or added; without boxes it goes.
export function withAnchor(answer, old, anchor) {
  const known = anchorsOf(answer);
  const place = known.findIndex(({ key_slice }) => key_slice === old?.key_slice);
  const all = place < 0 ? [...known, anchor] : known.with(place, anchor);
  const [first, ...further] = all.filter(({ boxes_px }) => boxes_px.length > 0);
  return first ? anchorIn({ ...first, further }) : { key_slice: null, boxes_px: [] };
}

// As the server tells it: the same slices, in any order, with boxes that differ by no more than a record rounds. A box that
// was moved and is back may lie a bit in the last digit beside its place.
export function sameAnchor(one, other) {
  const [mine, theirs] = [anchorsOf(one), anchorsOf(other)];
  return mine.length === theirs.length && mine.every(({ key_slice, boxes_px }) => {
    const found = theirs.find((anchor) => anchor.key_slice === key_slice);
    return found !== undefined && sameBoxes(boxes_px, found.boxes_px);
  });
}

function sameBoxes(mine, theirs) {
  return mine.length === theirs.length
    && mine.every((box, i) => box.every((edge, k) => Math.abs(edge - theirs[i][k]) <= SAME_PX));
}

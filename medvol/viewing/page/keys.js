// Everything by the keyboard. Letters are left alone while a text is written.

export const KEYS = [
  ["↑ ↓", "next slice towards head or feet; PageUp and PageDown go ten"],
  ["Home", "the key slice"],
  ["K", "put the boxes on this slice: it becomes the key slice; of several anchors the nearest moves"],
  ["N", "add a box in the middle of the slice"],
  ["[ ]", "choose another box"],
  ["Shift + arrows", "move the chosen box by a pixel, with Ctrl by ten"],
  ["Alt + arrows", "move its right or lower edge by a pixel, with Ctrl by ten"],
  ["Delete", "delete the chosen box; without boxes the answer is “not in this scan”"],
  ["Z, Shift + Z", "undo, redo"],
  ["1 … 6", "windows; right-drag or Shift + drag changes them by hand"],
  ["V, B, W", "tools: move boxes, draw a box, change the window"],
  ["M, O, T", "mask, the answer as it was, the truth"],
  ["Ctrl + wheel", "zoom; the middle button pans; F fits the scan again"],
  ["A, C, R", "accept, correct, reject"],
  [". ,", "next answer, the one before"],
  ["L", "work list"],
  ["Esc", "cancel what is being computed"],
  ["?", "this list"],
];

// What a held key does again and again. All else it does once: the next answer is not judged before somebody saw it.
const REPEATED = new Set(["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "PageUp", "PageDown", "[", "]"]);

// `busy` says when keys do nothing: while the pointer holds a box.
export function listen(acts, busy) {
  const done = (event, act) => {
    event.preventDefault();
    if (!busy() && (!event.repeat || REPEATED.has(event.key))) act();
  };
  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]")) return; // what lies behind it stays as it is
    const writes = event.target.matches("input[type=text], textarea, select");
    if (event.key === "Escape" && writes) return event.target.blur();
    if (writes) return;
    if (event.repeat && event.key === "Enter" && event.target.matches("button")) return event.preventDefault();
    const arrow = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] }[event.key];
    if (arrow && (event.shiftKey || event.altKey)) {
      const far = event.ctrlKey ? 10 : 1;
      return done(event, () => acts.nudge(arrow[0] * far, arrow[1] * far, event.altKey));
    }
    const bracket = event.altKey && "[]".includes(event.key); // many keyboards have it on AltGr or Option alone
    if ((event.ctrlKey || event.metaKey) && !bracket) {
      const letter = event.key.toLowerCase();
      if (letter === "z") return done(event, event.shiftKey ? acts.redo : acts.undo);
      if (letter === "y") return done(event, acts.redo);
      return;
    }
    if (event.altKey && !bracket) return;
    const act = find(acts, event);
    if (act) done(event, act);
  });
}

function find(acts, event) {
  const onSlider = event.target.matches("input[type=range]");
  const slices = { ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10 };
  if (event.key in slices && !onSlider) return () => acts.step(slices[event.key]);
  if (/^[1-9]$/.test(event.key)) return () => acts.window(Number(event.key) - 1);
  const named = {
    Home: acts.toKey, Delete: acts.remove, Backspace: acts.remove, Escape: acts.cancel, "?": acts.help,
    "[": () => acts.next(-1), "]": () => acts.next(1), ".": () => acts.go(1), ",": () => acts.go(-1),
    k: acts.makeKey, n: acts.add, v: () => acts.tool("move"), b: () => acts.tool("add"), w: () => acts.tool("window"),
    m: () => acts.toggle("show-mask"), o: () => acts.toggle("show-original"), t: () => acts.toggle("show-truth"),
    a: acts.accept, c: acts.correct, r: acts.reject, l: acts.list, f: acts.fit,
  };
  if (event.key.toLowerCase() === "z") return event.shiftKey ? acts.redo : acts.undo;
  return named[event.key] ?? named[event.key.toLowerCase()];
}

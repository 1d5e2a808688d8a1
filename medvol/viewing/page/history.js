// Undo and redo of anchors: each state is as in anchors.js, never changed once it is here.
import { sameAnchor } from "./anchors.js";

export class History {
  constructor(first) {
    this.states = [first];
    this.place = 0;
  }

  get now() {
    return this.states[this.place];
  }

  get canUndo() {
    return this.place > 0;
  }

  get canRedo() {
    return this.place < this.states.length - 1;
  }

  push(state) {
    if (sameAnchor(state, this.now)) return false;
    this.states = [...this.states.slice(0, this.place + 1), state];
    this.place++;
    return true;
  }

  undo() {
    if (this.canUndo) this.place--;
    return this.now;
  }

  redo() {
    if (this.canRedo) this.place++;
    return this.now;
  }
}

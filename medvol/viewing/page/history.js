// Undo and redo of anchors: each state is as in anchors.js, never changed once it is here. The tab keeps the states of an
// answer under a name, so that they are there again after a reload.
import { sameAnchor } from "./anchors.js";

export class History {
  constructor(first, name = null) {
    this.name = name;
    this.states = [first];
    this.place = 0;
  }

  // The history that the tab kept of an answer that was read as `first` and stands at `now`; else a new one.
  static resume(name, first, now) {
    const history = new History(first, name);
    const states = kept(name);
    const place = states.findLastIndex((state) => sameAnchor(state, now));
    if (place >= 0 && sameAnchor(states[0], first)) Object.assign(history, { states, place });
    else history.push(now);
    return history;
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
    this.place++;
    this.amend(state);
    return true;
  }

  // A state in place of the last one, which was on the way to it.
  amend(state) {
    this.states = [...this.states.slice(0, this.place), state];
    if (this.name) keep(this.name, this.states);
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

// A tab may be set to keep nothing, or be full: undo then ends at a reload, and drafts are on the disk anyway.
function keep(name, states) {
  try {
    sessionStorage.setItem(name, JSON.stringify(states));
  } catch (error) {
    console.info(error.message);
  }
}

function kept(name) {
  try {
    return JSON.parse(sessionStorage.getItem(name)) ?? [];
  } catch (error) {
    console.info(error.message);
    return [];
  }
}

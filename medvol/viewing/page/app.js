// The page: one answer at a time, its boxes, its masks, and what the server knows of it.
import { Cancelled, Gone, Refusal, cancel, drop, get, put, run } from "./api.js";
import { anchorIn, anchorsOf, sameAnchor, withAnchor } from "./anchors.js";
import { History } from "./history.js";
import { KEYS, listen } from "./keys.js";
import { Mask } from "./mask.js";
import { clearAnswer, element, showAnswer, showBanner, showList, showMeasures, showWindows } from "./panel.js";
import { MOST_BYTES, Scan } from "./scan.js";
import { hasWebGL, show } from "./three.js";
import { Views } from "./views.js";

const KEEP_MS = 500;
const NUDGE_MS = 350;
const RETRY_MS = 2000;
const byId = (id) => document.getElementById(id);
const isOpen = ({ verdict, damage }) => verdict === null && damage === "";

class Desk {
  constructor() {
    this.session = null;
    this.answers = [];
    this.answer = null;
    this.opening = null;
    this.scan = null;
    this.history = null;
    this.window = [-160, 240];
    this.followed = { original: null, now: null, truth: null };
    this.now = null;
    this.job = null;
    this.mine = null;
    this.nudged = null;
    this.kept = true;
    this.judging = false;
    this.turn = 0;
    this.gone = false;
    this.torn = null;
    this.saving = Promise.resolve();
    this.views = new Views(this);
  }

  get anchor() {
    return this.history?.now;
  }

  // An answer that is not here yet, or is just being saved, stays as it is.
  get mayChange() {
    return this.answer !== null && !this.judging;
  }

  async start() {
    [this.session, { answers: this.answers }] = await Promise.all([get("api/session"), get("api/answers")]);
    this.list();
    const scans = this.session.scans.map(({ scan, name }) => Object.assign(element("option", name), { value: scan }));
    byId("new-scan").replaceChildren(...scans);
    byId("new-question").hidden = scans.length === 0;
    byId("ask-policy").hidden = this.session.policy === null;
    byId("ask-policy").textContent = `Ask ${this.session.policy ?? "the policy"}`;
    if (this.session.problems.length > 0) byId("list").append(...this.session.problems.map((p) => element("p", p, "problem")));
    const first = this.answers.find(isOpen) ?? this.answers[0];
    if (first) await this.open(first.id);
    else byId("new-query").focus();
  }

  list() {
    showList(this.answers, this.opening, (id) => this.try(() => this.open(id)));
  }

  async refresh() {
    this.answers = (await get("api/answers")).answers;
    this.list();
  }

  // Open an answer: its last reading, and the draft where one is not finished. What cannot be kept is not left.
  async open(id) {
    if (this.judging) return this.say("This answer is being saved; wait a moment.");
    if (!(await this.keepNow()) || this.judging) return;
    const turn = ++this.turn;
    this.opening = id;
    showBanner(null);
    await this.preview(this.answers.find((listed) => listed.id === id), turn);
    const answer = await this.work(`api/answers/${id}/open`, {});
    const { original, current, truth } = answer;
    const followed = {
      original: await Mask.unpack(original.mask),
      now: await Mask.unpack(current.mask),
      truth: truth === null ? null : await Mask.unpack(truth),
    };
    if (turn !== this.turn) return;
    this.answer = answer;
    this.followed = followed;
    this.now = current;
    const asked = [...byId("new-scan").options].find(({ value }) => value === answer.scan.scan);
    if (asked) asked.selected = true; // what is asked next is about the scan in view, unless another one is chosen
    this.history = History.resume(`history ${id}`, anchorIn(answer.current), anchorIn(answer.draft ?? answer.current));
    this.revision = answer.draft?.revision ?? 0;
    this.torn = null;
    this.showWhetherFree();
    byId("remark").value = answer.draft?.remark ?? "";
    if (answer.draft !== null) {
      const stale = answer.draft.parent_sha256 !== answer.current.sha256;
      if (stale) this.say("This draft was begun before the last reading; it lies on top of it, and Z takes it back.");
    }
    for (const id of ["show-original", "show-truth"]) byId(id).checked = false;
    byId("show-mask").checked = true;
    this.views.chosen = 0;
    const span = this.followed.now.span;
    const middle = span === null ? Math.floor(this.scan.depth / 2) : Math.floor((span[0] + span[1]) / 2);
    this.aimAt(this.anchor, middle);
    showAnswer(answer, this.session);
    showWindows(answer.scan.windows, (window) => this.setWindow(window));
    this.setWindow(answer.scan.windows.find(({ name }) => name === answer.window) ?? answer.scan.windows[0]);
    this.refreshPanel();
    this.list();
    if (this.mine?.id === id) this.putMine();
    else if (answer.draft !== null) this.follow();
    else this.draw3D();
  }

  // What the reader had when somebody else was there first goes on top of theirs.
  putMine() {
    const { anchor, remark } = this.mine;
    this.mine = null;
    byId("remark").value = remark;
    this.history.push(anchor);
    this.settle();
  }

  // The scan and the boxes at once; masks and measures follow.
  async preview(listed, turn) {
    clearTimeout(this.nudged);
    this.views.letGo();
    this.answer = null;
    this.history = null;
    this.nudged = null;
    this.now = null;
    this.showWhetherFree();
    clearAnswer();
    this.followed = { original: null, now: null, truth: null };
    this.views.redraw();
    this.draw3D();
    const about = await this.work(`api/scans/${listed.scan}/open`, {});
    if (turn !== this.turn) return;
    byId("query").textContent = listed.query;
    this.history = new History(listed.anchor);
    this.useScan(about);
    this.setWindow(about.windows[0]);
    this.aimAt(this.anchor, Math.floor(this.scan.depth / 2));
    this.scan.load(this.views.cross[2]).catch((error) => this.explain(error));
  }

  useScan(about) {
    if (this.scan?.about.scan === about.scan) return;
    this.scan?.close();
    this.scan = new Scan(about, () => {
      this.views.redraw();
      this.progress();
    });
    byId("slice").max = this.scan.depth - 1;
    this.views.center();
    if (!this.scan.whole) {
      showBanner(`This scan is larger than the ${MOST_BYTES / 2 ** 20} MiB that the page keeps: axial slices come as you scroll, `
        + "and the other planes are not drawn.");
    }
  }

  aimAt(anchor, otherwise) {
    const box = anchor.boxes_px[0] ?? [0, 0, this.scan.width, this.scan.height];
    const [x, y] = [Math.floor((box[0] + box[2]) / 2), Math.floor((box[1] + box[3]) / 2)];
    this.views.cross = [Math.min(x, this.scan.width - 1), Math.min(y, this.scan.height - 1), 0];
    this.views.goTo(anchor.key_slice ?? otherwise);
  }

  // What the planes show, from below to above.
  masks() {
    const { original, now, truth } = this.followed;
    return [
      { mask: byId("show-mask").checked ? now : null, colour: "mask", dashed: false },
      { mask: byId("show-truth").checked ? truth : null, colour: "truth", dashed: true },
      { mask: byId("show-original").checked ? original : null, colour: "original", dashed: true },
    ];
  }

  // An anchor that the reader made: kept in the history, as a draft, and followed to its mask.
  change(anchor) {
    if (this.mayChange && this.history.push(anchor)) this.settle();
  }

  // Boxes on the slice in view: those of the anchor there, of one that moves to it, or of a new one.
  put(boxes_px, old = this.views.onKey ? this.views.near : undefined) {
    this.change(withAnchor(this.anchor, old, { key_slice: this.views.cross[2], boxes_px }));
  }

  settle() {
    this.views.letGo();
    this.views.chosen = Math.min(this.views.chosen, Math.max(0, this.views.boxes.length - 1));
    this.keep();
    this.follow();
    this.refreshPanel();
    this.views.redraw();
  }

  // The mask of the anchor as it is now; an earlier one that is still followed is cancelled.
  async follow() {
    const { anchor, answer } = this;
    clearTimeout(this.nudged);
    this.nudged = null;
    if (this.job?.kind === "follow") cancel(this.job.id);
    if (sameAnchor(anchor, answer.current)) return this.take(answer.current, anchor);
    if (sameAnchor(anchor, answer.original)) return this.take(answer.original, anchor);
    this.now = null;
    this.refreshPanel();
    try {
      await this.take(await this.work(`api/answers/${answer.id}/mask`, { anchor }, "follow"), anchor);
    } catch (error) {
      if (!(error instanceof Cancelled)) this.explain(error);
    }
  }

  async take(found, anchor) {
    const mask = await Mask.unpack(found.mask);
    if (this.anchor !== anchor) return;
    this.now = found;
    this.followed.now = mask;
    document.body.dataset.followed = JSON.stringify(anchor);
    this.refreshPanel();
    this.views.redraw();
    this.draw3D();
  }

  // Keep a draft a moment after the last change.
  keep() {
    this.kept = false;
    byId("kept").textContent = "keeping …";
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.keepNow(), KEEP_MS);
  }

  // True when all that the reader did is kept.
  async keepNow() {
    clearTimeout(this.timer);
    if (this.torn) this.explain(this.torn);
    else if (!this.kept) {
      this.kept = true;
      this.saving = this.saving.then(() => this.sendDraft());
    }
    await this.saving;
    return this.kept;
  }

  async sendDraft() {
    const { answer, anchor, revision } = this;
    const remark = byId("remark").value;
    const path = `api/answers/${answer.id}/draft`;
    try {
      if (sameAnchor(anchor, answer.current) && remark.trim() === "") {
        if (revision > 0) await drop(`${path}?revision=${revision}`);
        this.revision = 0;
      } else {
        const body = { anchor, remark, parent_sha256: answer.current.sha256, revision };
        this.revision = (await put(path, body)).revision;
      }
      byId("kept").textContent = "draft kept";
      const listed = this.answers.find(({ id }) => id === answer.id);
      if (listed) listed.unfinished = this.revision > 0;
      this.list();
      if (this.gone) this.back();
    } catch (error) {
      this.kept = false;
      byId("kept").textContent = "not kept";
      this.explain(error);
    }
  }

  // Accept, correct or reject. A verdict on moved boxes is a correction.
  async judge(verdict) {
    if (!this.mayChange || this.views.holdsBox) return;
    const { answer } = this;
    const moved = !sameAnchor(this.anchor, answer.current);
    if (moved && verdict !== "corrected") return this.say("The boxes were moved: correct, or undo.");
    if (this.now === null) return this.say("The mask is not there yet; wait, or undo.");
    this.judging = true;
    this.showWhetherFree();
    try {
      if (!(await this.keepNow())) return;
      await this.save(verdict);
    } finally {
      this.judging = false;
      this.showWhetherFree();
    }
    const place = this.answers.findIndex(({ id }) => id === answer.id);
    const order = [...this.answers.slice(place + 1), ...this.answers.slice(0, place)];
    const next = order.find(isOpen);
    await this.open(next ? next.id : answer.id);
    const left = this.answers.some(({ damage }) => damage);
    if (!next) this.say(left ? "All answers are read, but for the damaged ones." : "All answers are read.");
  }

  async save(verdict) {
    const { answer, anchor } = this;
    const remark = byId("remark").value.trim();
    const body = { verdict, anchor, remark, parent_sha256: answer.current.sha256, revision: this.revision };
    const saved = await this.work(`api/answers/${answer.id}/readings`, body, "save");
    byId("kept").textContent = `saved: ${saved.file}`;
    document.body.dataset.saved = saved.file;
    await this.refresh();
  }

  // A remark that is written while it cannot be kept would be lost.
  showWhetherFree() {
    byId("remark").readOnly = !this.mayChange;
  }

  async ask(byPolicy) {
    const query = byId("new-query").value.trim();
    if (query === "") return byId("new-query").focus();
    const made = await this.work("api/answers", { scan: byId("new-scan").value, query, ask: byPolicy });
    byId("new-query").value = "";
    await this.refresh();
    await this.open(made.id);
    if (!byPolicy) this.choose("add");
    byId("axial").focus();
  }

  // Work that may take long: told after a moment, and cancelled by Esc; what saves is done to its end.
  async work(path, body, kind = "read") {
    let mine = null;
    const tell = (progress, title) => {
      if (mine !== null && this.job !== mine) return;
      byId("work").hidden = progress === null;
      byId("cancel").hidden = kind === "save";
      if (progress === null) return;
      byId("work-text").textContent = progress.text || `${title}, ${Math.round(progress.seconds)} s so far`;
      if (progress.share === null) byId("work-bar").removeAttribute("value");
      else byId("work-bar").value = progress.share;
    };
    try {
      return await run(path, body, tell, (id) => (this.job = mine = { id, kind }));
    } finally {
      if (this.job === mine) {
        this.job = null;
        byId("work").hidden = true;
      }
    }
  }

  async cancel() {
    const { job, anchor } = this;
    if (!job || job.kind === "save") return;
    await cancel(job.id);
    if (job.kind === "follow" && this.anchor === anchor && this.now === null) this.undo();
  }

  undo() {
    if (this.mayChange && this.history.canUndo) this.to(this.history.undo());
  }

  redo() {
    if (this.mayChange && this.history.canRedo) this.to(this.history.redo());
  }

  // To the key slice; of several to the next one towards the head, and from the last to the first.
  toKey() {
    const keys = anchorsOf(this.anchor).map(({ key_slice }) => key_slice).sort((a, b) => a - b);
    if (keys.length > 0) this.views.goTo(keys.find((key) => key > this.views.cross[2]) ?? keys[0]);
  }

  to(anchor) {
    this.views.letGo();
    if (anchor.key_slice !== null) this.views.goTo(anchor.key_slice);
    this.settle();
  }

  add() {
    if (!this.mayChange || !this.mayAdd()) return;
    const { width, height } = this.scan;
    const [x, y] = this.views.cross;
    const [w, h] = [Math.max(2, Math.round(width / 8)), Math.max(2, Math.round(height / 8))];
    const left = Math.max(0, Math.min(width - w, x - (w >> 1)));
    const top = Math.max(0, Math.min(height - h, y - (h >> 1)));
    const boxes_px = [...(this.views.onKey ? this.views.boxes : []), [left, top, left + w, top + h]];
    this.views.chosen = boxes_px.length - 1;
    this.put(boxes_px);
  }

  remove() {
    if (!this.mayChange || !this.views.onKey) return;
    this.put(this.views.boxes.filter((_, index) => index !== this.views.chosen));
  }

  makeKey() {
    if (!this.mayChange || this.anchor.boxes_px.length === 0) return;
    this.put(this.views.near.boxes_px, this.views.near);
  }

  // An answer of several anchors may get one more; that of one anchor keeps its slice.
  mayAdd() {
    const free = anchorsOf(this.anchor).length !== 1 || this.views.onKey;
    if (!free) this.say(`The boxes lie on slice ${this.anchor.key_slice}; press K to put them on this one, or Home to go there.`);
    return free;
  }

  // The box moves at once. Nudges that follow one another are one step of the history, and the mask waits for the last.
  nudge(dx, dy, resize) {
    const boxes_px = this.mayChange ? this.views.nudge(dx, dy, resize) : null;
    if (boxes_px === null) return;
    const anchor = withAnchor(this.anchor, this.views.near, { key_slice: this.views.cross[2], boxes_px });
    if (sameAnchor(anchor, this.anchor)) return;
    if (this.nudged === null) this.history.push(anchor);
    else this.history.amend(anchor);
    this.now = null;
    this.keep();
    this.refreshPanel();
    this.views.redraw();
    clearTimeout(this.nudged);
    this.nudged = setTimeout(() => this.follow(), NUDGE_MS);
  }

  next(step) {
    const count = this.views.boxes.length;
    if (count > 0) this.views.chosen = (this.views.chosen + step + count) % count;
    this.views.redraw();
  }

  async go(step) {
    const place = this.answers.findIndex(({ id }) => id === this.opening);
    const other = this.answers[place + step];
    if (other) await this.open(other.id);
  }

  choose(tool) {
    this.views.tool = tool;
    for (const button of document.querySelectorAll("[data-tool]")) {
      button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
    }
  }

  setWindow({ low, high, name }) {
    this.window = [low, high];
    for (const button of document.querySelectorAll("[data-window]")) {
      button.setAttribute("aria-pressed", String(button.dataset.window === name));
    }
    byId("window-now").textContent = `${Math.round(low)} to ${Math.round(high)}${this.scan?.about.unit ? " HU" : ""}`;
    this.views.redraw();
  }

  drag([low, high], dx, dy) {
    const width = Math.max((high - low) * 1.01 ** dx, this.scan.about.slope);
    const middle = (low + high) / 2 + (dy * (high - low)) / 400;
    this.setWindow({ low: middle - width / 2, high: middle + width / 2, name: null });
  }

  moved() {
    const z = this.views.cross[2];
    byId("slice").value = z;
    byId("slice-number").textContent = `${z} / ${this.scan.depth - 1}`;
    byId("place").textContent = this.views.onKey ? `key slice ${z}` : `slice ${z}`;
    byId("place").classList.toggle("key", this.views.onKey);
    const key = this.views.near?.key_slice;
    byId("slice").style.setProperty("--key", key === null || key === undefined ? "-1" : String(key / Math.max(1, this.scan.depth - 1)));
    this.progress();
  }

  over(at) {
    const inside = at && this.scan && at.every((v, i) => v >= 0 && v < [this.scan.width, this.scan.height][i]);
    const [x, y] = inside ? at.map(Math.floor) : [0, 0];
    const value = inside ? this.scan.intensity(x, y, this.views.cross[2]) : null;
    const unit = this.scan?.about.unit ?? "";
    byId("value").textContent = value === null ? "" : `${x}, ${y}: ${Math.round(value * 10) / 10} ${unit}`;
  }

  progress() {
    const rest = this.scan && this.scan.whole && this.scan.loaded < 1;
    byId("scan-name").textContent = this.scan
      ? `${this.scan.about.name}${rest ? ` · ${Math.round(this.scan.loaded * 100)} % of the slices are here` : ""}`
      : "";
    if (this.scan) document.body.dataset.loaded = String(this.scan.loaded);
  }

  refreshPanel() {
    const { answer } = this;
    const changed = !sameAnchor(this.anchor, answer.current);
    showMeasures(answer.original, this.now, answer.scan.unit, this.now === null);
    byId("undo").disabled = !this.history.canUndo;
    byId("redo").disabled = !this.history.canRedo;
    byId("delete-box").disabled = this.anchor.boxes_px.length === 0;
    const unanswered = answer.failure !== "" && answer.verdict === null; // to correct it without a box: not in this scan
    byId("accept").disabled = changed || unanswered;
    byId("reject").disabled = changed;
    byId("correct").disabled = this.now === null || (!changed && !unanswered && sameAnchor(this.anchor, answer.original));
    byId("accept").title = changed ? "The boxes were moved: correct, or undo" : "The answer is right (A)";
    this.moved();
    document.body.dataset.answer = answer.id;
    document.body.dataset.anchor = JSON.stringify(this.anchor);
  }

  draw3D() {
    clearTimeout(this.third);
    const place = byId("three");
    if (place.offsetParent === null) return;
    if (!hasWebGL()) {
      byId("three-note").textContent = "This browser has no WebGL 2, so there is no 3D view.";
      return;
    }
    const { scan } = this;
    const { now } = this.followed;
    const tell = (text) => this.followed.now === now && (byId("three-note").textContent = text);
    const draw = () => show(place, scan, now).then(() => tell(now?.empty ? "no mask" : ""), (error) => tell(error.message));
    this.third = setTimeout(draw, now === null ? 0 : 250);
  }

  say(text) {
    showBanner(text, ["Close", () => showBanner(null)]);
  }

  // Somebody else was there first: nothing of either is lost.
  conflict(error) {
    this.torn = error;
    this.kept = false;
    const { id } = this.answer;
    const load = (mine) => {
      this.mine = mine;
      this.torn = null;
      this.kept = true;
      return this.try(() => this.open(id));
    };
    const putOnTop = () => load({ id, anchor: this.anchor, remark: byId("remark").value });
    showBanner(`${error.message}.`, ["Load theirs", () => load(null)], ["Put mine on top", putOnTop]);
  }

  explain(error) {
    if (error instanceof Cancelled) return;
    if (error instanceof Gone) return this.waitForServer();
    if (error instanceof Refusal && error.status === 409) return this.conflict(error);
    this.say(error.message);
    if (!(error instanceof Refusal)) throw error;
  }

  waitForServer() {
    showBanner("The server does not answer. When `medvol view` was ended, start it again and open the address that it "
      + "prints: your drafts are on the disk. What was changed since then stays in this tab.");
    byId("kept").textContent = "not kept";
    this.gone = true;
    clearTimeout(this.retry);
    this.retry = setTimeout(async () => {
      try {
        await get("api/session");
      } catch (error) {
        if (error instanceof Gone) return this.waitForServer();
        return this.say(error.message);
      }
      this.back();
    }, RETRY_MS);
  }

  // The server answers again: what waited is done now.
  back() {
    this.gone = false;
    clearTimeout(this.retry);
    showBanner(null);
    if (!this.answer) return this.try(() => this.start());
    if (!this.kept) this.keep();
    if (this.now === null) this.follow();
  }

  async try(act) {
    try {
      await act();
    } catch (error) {
      this.explain(error);
    }
  }
}

const desk = new Desk();
const click = (id, act) => byId(id).addEventListener("click", () => desk.try(act));
const flip = (id) => {
  if (byId(id).closest("[hidden]")) return;
  byId(id).checked = !byId(id).checked;
  desk.views.redraw();
};
const toggleList = () => {
  const hidden = document.body.classList.toggle("no-list");
  byId("toggle-list").setAttribute("aria-expanded", String(!hidden));
};
const acts = {
  step: (slices) => desk.views.step(slices),
  window: (index) => desk.answer?.scan.windows[index] && desk.setWindow(desk.answer.scan.windows[index]),
  toKey: () => desk.toKey(),
  remove: () => desk.remove(),
  cancel: () => desk.try(() => desk.cancel()),
  help: () => byId("help").showModal(),
  next: (step) => desk.next(step),
  go: (step) => desk.try(() => desk.go(step)),
  makeKey: () => desk.makeKey(),
  add: () => desk.add(),
  tool: (name) => desk.choose(name),
  toggle: flip,
  nudge: (dx, dy, resize) => desk.nudge(dx, dy, resize),
  undo: () => desk.undo(),
  redo: () => desk.redo(),
  accept: () => desk.try(() => desk.judge("accepted")),
  correct: () => desk.try(() => desk.judge("corrected")),
  reject: () => desk.try(() => desk.judge("rejected")),
  list: toggleList,
  fit: () => desk.views.center(),
};
listen(acts, () => desk.views.holdsBox);
byId("keys").replaceChildren(...KEYS.flatMap(([key, what]) => [element("dt", key), element("dd", what)]));
for (const button of document.querySelectorAll("[data-tool]")) {
  button.addEventListener("click", () => desk.choose(button.dataset.tool));
}
for (const id of ["show-mask", "show-original", "show-truth"]) byId(id).addEventListener("change", () => desk.views.redraw());
byId("slice").addEventListener("input", () => desk.views.goTo(Number(byId("slice").value)));
byId("remark").addEventListener("input", () => desk.keep());
byId("new-question").addEventListener("submit", (event) => {
  event.preventDefault();
  desk.try(() => desk.ask(desk.session.policy !== null));
});
click("ask-me", () => desk.ask(false));
click("undo", acts.undo);
click("redo", acts.redo);
click("delete-box", acts.remove);
click("make-key", acts.makeKey);
click("to-key", acts.toKey);
click("cancel", () => desk.cancel());
click("accept", () => desk.judge("accepted"));
click("correct", () => desk.judge("corrected"));
click("reject", () => desk.judge("rejected"));
click("help-button", acts.help);
click("toggle-list", toggleList);
click("theme", () => document.documentElement.classList.toggle("light"));
window.addEventListener("beforeunload", (event) => {
  if (!desk.kept || desk.mine !== null) event.preventDefault();
});
if (window.matchMedia("(max-width: 900px)").matches) toggleList();
desk.try(() => desk.start());

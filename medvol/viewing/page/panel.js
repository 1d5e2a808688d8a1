// What stands beside the scan: measures, windows, warnings, verdicts. All text from answers is set as text.

const byId = (id) => document.getElementById(id);

export function showMeasures(original, now, unit, stale) {
  const rows = [
    ["volume", (m) => (m.voxels ? `${m.volume_ml.toPrecision(4)} ml` : "empty")],
    [unit === "HU" ? "mean" : "mean intensity", (m) => number(m.mean_intensity, unit)],
    ["longest", (m) => number(m.longest_diameter_mm, "mm")],
    ["across", (m) => number(m.perpendicular_diameter_mm, "mm")],
  ];
  const cells = rows.map(([name, tell]) => [name, tell(original.measures), now === null ? "…" : tell(now.measures)]);
  if (original.dice !== null && original.dice !== undefined) {
    cells.push(["Dice", original.dice.toFixed(3), now === null ? "…" : now.dice.toFixed(3)]);
  }
  const body = byId("measures").tBodies[0];
  body.replaceChildren(...cells.map(([name, ...values]) => {
    const row = document.createElement("tr");
    row.append(element("th", name), ...values.map((value) => element("td", value)));
    return row;
  }));
  byId("measures").classList.toggle("stale", stale);
}

function number(value, unit) {
  if (value === null) {
    return "–";
  }
  const small = Math.abs(value) < 1 && value !== 0;
  return `${small ? value.toPrecision(2) : Math.abs(value) < 1000 ? value.toFixed(1) : Math.round(value)} ${unit ?? ""}`.trim();
}

export function showWindows(windows, choose) {
  byId("windows").replaceChildren(...windows.map((window, index) => {
    const button = element("button", window.title);
    button.type = "button";
    button.dataset.window = window.name;
    button.title = `${Math.round(window.low)} to ${Math.round(window.high)} (${index + 1})`;
    button.addEventListener("click", () => choose(window));
    return button;
  }));
}

export function showAnswer(answer, session) {
  byId("query").textContent = answer.query;
  byId("scan-name").textContent = answer.scan.name;
  document.title = `${answer.query} · medvol view`;
  const notes = [...answer.warnings];
  if (answer.failure) notes.unshift(`The answer gave no mask: ${answer.failure}`);
  if (answer.others.length > 0) notes.push(`Another reading was saved beside this one: ${answer.others.join(", ")}`);
  if (!answer.same_propagator) {
    notes.push(`The answer's mask was made by ${answer.propagator || "another propagator"} with other settings than `
      + `the ${session.propagator} that follows your boxes here.`);
  }
  byId("warnings").replaceChildren(...notes.map((note) => element("p", note)));
  byId("completion").textContent = answer.completion || "(none)";
  byId("verdict").textContent = describeVerdict(answer);
  byId("truth-label").hidden = answer.truth === null;
}

// Nothing of an answer that is left stands beside the next one, which may take long to come.
export function clearAnswer() {
  for (const part of [byId("warnings"), byId("measures").tBodies[0], byId("completion"), byId("verdict")]) part.replaceChildren();
  byId("truth-label").hidden = true;
}

export function describeVerdict(answer) {
  if (answer.verdict === null) return "Not read yet.";
  const who = answer.reader ? ` by ${answer.reader}` : "";
  const remark = answer.remark ? `: “${answer.remark}”` : "";
  return `${answer.verdict}${who}, ${answer.time.replace("T", " ").replace("Z", " UTC")}${remark}`;
}

export function showList(answers, current, open) {
  const read = answers.filter((answer) => answer.verdict !== null).length;
  byId("list-count").textContent = answers.length === 0 ? "No answers yet." : `${read} of ${answers.length} read`;
  const list = byId("answers");
  const held = list.contains(document.activeElement) ? document.activeElement.dataset.answer : null;
  list.replaceChildren(...answers.map((answer) => {
    const item = document.createElement("li");
    const button = element("button", "");
    button.type = "button";
    button.dataset.answer = answer.id;
    button.append(element("span", answer.query, "what"), element("span", answer.scan_name, "where"));
    const state = answer.damage ? "damaged" : answer.unfinished ? "unfinished" : answer.verdict ?? (answer.failure ? "failed" : "open");
    button.append(element("span", state, `state ${state}`));
    if (answer.id === current) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => open(answer.id));
    item.append(button);
    return item;
  }));
  if (held) list.querySelector(`[data-answer="${held}"]`)?.focus({ preventScroll: true });
}

export function showBanner(text, ...choices) {
  const banner = byId("banner");
  banner.hidden = text === null;
  banner.replaceChildren();
  if (text === null) return;
  banner.append(element("span", text));
  for (const [label, act] of choices) {
    const button = element("button", label);
    button.type = "button";
    button.addEventListener("click", act);
    banner.append(button);
  }
}

export function element(kind, text, name = "") {
  const made = document.createElement(kind);
  made.textContent = text;
  made.className = name;
  return made;
}

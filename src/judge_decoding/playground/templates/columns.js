// The answers, and what can be done with one of their tokens.

// ---- columns

function clear(name) {
  const box = by(name);
  columns[name] = {
    name, box, list: box.querySelector(".tokens"), state: box.querySelector(".state"), sample: null, id: null, units: [],
    mark: null, figures: null, ended: false, heard: [],
  };
  columns[name].list.replaceChildren();
  columns[name].state.textContent = "";
  box.querySelector(".figures").replaceChildren();
  by("moved").hidden = true;
}

function add(column, pieces, causes) {
  pieces.forEach((text, i) => {
    if (!text) return;
    const made = element("span"), spaces = text.match(/^[ \t]*/)[0];
    made.append(column.list.textContent ? visible(spaces) : "", element("span", causes[i], visible(text.slice(spaces.length))));
    column.list.append(made);
  });
}

// A round as it was decoded.
function hear(column, { pieces, causes, figures: now }) {
  add(column, pieces, column.name === "target" ? pieces.map(() => "plain") : causes);
  figures(column, now);
}

function figures(column, now) {
  const own = columns.target.figures, share = now.acceptance_rate;
  const rows = [
    ["tokens per second", rate(now.tokens_per_second ?? 0)],
    ["mean acceptance length", now.mean_acceptance_length.toFixed(2)],
    ["acceptance rate", share === null ? "–" : (100 * share).toFixed(0) + "%"],
    ["tokens", now.tokens],
    ["seconds", now.seconds.toFixed(2)],
    ["times the target alone", column.name === "target" ? "1" : column.name === "judge" && own ? (now.tokens_per_second / own.tokens_per_second).toFixed(1) : "–"],
  ];
  column.box.querySelector(".figures").replaceChildren(...rows.map(([term, value]) => {
    const row = element("div");
    row.append(element("dt", "", term), element("dd", "", String(value)));
    return row;
  }));
}

// The whole answer is here: its tokens can be gone to.
function finish(column, sample, figures) {
  Object.assign(column, { sample, id: running, units: unitsOf(sample), mark: null });
  by("right").setAttribute("aria-pressed", false);
  since = performance.now();
  const groups = sample.rounds.map((round, r) => {
    const group = element("span", "round");
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", `Round ${r + 1}, ${acceptedOf(round)} of ${round.draft_ids.length} accepted`);
    return group;
  });
  for (const unit of column.units) {
    unit.answer = unit.column = column;
    unit.element = element("span", "token" + (unit.rest ? " rest" : ""));
    unit.element.setAttribute("role", "option");
    unit.element.setAttribute("aria-selected", false);
    unit.element.tabIndex = -1;
    unit.element.unit = unit;
    groups[unit.round].append(unit.element);
  }
  column.groups = groups;
  column.list.replaceChildren(...groups);
  if (column.units.length) column.units[0].element.tabIndex = 0;
  if (column.name === "judge") recolour();
  else paint(column, null);
  const now = figures[column.name], own = column.name === "judge" && columns.target.figures;
  const distance = sample.distance > 1 ? " The prompt looks unlike the questions the judge was trained on." : "";
  if (distance) column.state.textContent += distance;
  say(`${column.box.querySelector("h2").textContent}: ${visible(sample.text)} ` + (now ? `${rate(now.tokens_per_second)} tokens per second` : "") +
    (own ? `, ${(now.tokens_per_second / own.tokens_per_second).toFixed(1)} times the target alone.` : ".") + distance);
}

function paint(column, at) {
  const { sample } = column;
  const verdicts = sample.rounds.map((round) => verdictsOf(sample, round, at));
  const first = verdicts.findIndex(({ changed }) => changed);
  column.groups.forEach((group, r) => group.classList.toggle("stale", first >= 0 && r > first));
  for (const unit of column.units) {
    settle(unit, sample, verdicts);
    unit.element.classList.toggle("gained", unit.gained);
    const spaces = unit.named ? "" : unit.text.match(/^[ \t]*/)[0], ink = visible(unit.text.slice(spaces.length));
    const marked = unit.status === "agreed" ? ink : (ink || "·".repeat(spaces.length)).replace(/\n/g, "⏎\n");
    const begins = unit === column.units[0]; // no space at the start of the box
    unit.element.replaceChildren(!begins && (ink || unit.status === "agreed") ? spaces : "", element("span", unit.status + (unit.named ? " named" : ""), marked));
    const wrong = column.mark?.unit === unit;
    unit.element.classList.toggle("wrong", wrong);
    unit.element.setAttribute("aria-label", `${name(unit.text)}, ${unit.gained ? "would be " : ""}${unit.status}${wrong ? ", marked wrong" : ""}`);
  }
  return first;
}

function recolour() {
  const column = columns.judge, value = Number(by("threshold-number").value || 1);
  if (!column?.sample) return;
  const movable = canMove(column.sample) && rule()?.name === "judge" && value !== column.sample.threshold;
  threshold = movable ? value : null;
  by("moved").hidden = paint(column, threshold) < 0;
  if (current && !by("inspector").hidden) show(current);
}

// ---- one token

const placeOf = (unit) => unit.column.sample.rounds.slice(0, unit.round).reduce((sum, { token_ids }) => sum + token_ids.length, 0) + unit.parts[0];

function canReject(unit) {
  const round = unit.column.sample.rounds[unit.round], place = unit.parts[0];
  return !unit.rest && isDraft(round.causes[place]) && round.target_ids[place] !== round.token_ids[place];
}

function go(unit) {
  endReplay();
  for (const { element: each } of unit.column.units) each.tabIndex = each === unit.element ? 0 : -1;
  unit.element.focus({ preventScroll: true });
  show(unit);
  unit.element.scrollIntoView({ block: "nearest" });
}

function show(unit) {
  current?.element.setAttribute("aria-selected", false);
  current = unit;
  unit.element.setAttribute("aria-selected", true);
  const held = threshold;
  if (unit.column.name !== "judge") threshold = null;
  const sides = [element("div"), element("div")];
  unit.parts.forEach((i) => describe(unit, i).forEach((part, n) => sides[n < 2 ? 0 : 1].append(part)));
  threshold = held;
  by("facts").replaceChildren(...sides);
  by("reject").disabled = !canReject(unit);
  by("wrong").disabled = unit.rest || !data.cases;
  by("inspector").hidden = false;
  showMark();
}

function showMark() {
  const mark = current?.column.mark;
  by("undo").hidden = !mark;
  by("saved").textContent = mark ? mark.said : "";
}

function close() {
  if (by("inspector").hidden) return false;
  by("inspector").hidden = true;
  current?.element.setAttribute("aria-selected", false);
  return true;
}

async function mark(verdict, column, unit) {
  if (!column?.sample || running !== null) return;
  endReplay();
  if (verdict === "none" && !column.mark) return hint("There is nothing to undo.", column);
  if (verdict === "wrong" && (!unit || unit.rest)) return say("Select a token of the answer first.");
  const body = { answer: column.id, verdict, seconds: (performance.now() - since) / 1000 };
  if (unit) [body.first, body.last] = [placeOf(unit), placeOf(unit) + unit.parts.length - 1];
  try {
    await ask("/mark", body);
  } catch (error) {
    return complain(error.message);
  }
  complain("");
  const said = verdict === "wrong" ? `Saved as wrong at ${quoted(unit.text)} in ${visible(data.cases)}.` : `Saved as all correct in ${visible(data.cases)}.`;
  column.mark = verdict === "none" ? null : { verdict, unit, said };
  if (column.name === "judge") by("right").setAttribute("aria-pressed", verdict === "right");
  paint(column, column.name === "judge" ? threshold : null);
  showMark();
  column.state.textContent = column.mark ? said : "Verdict undone.";
  say(column.state.textContent);
}

// To the next (1) or previous (-1) rescued token of the column that was last gone to.
function jump(step) {
  const column = current?.column.sample ? current.column : columns.judge;
  const found = (column?.units ?? []).filter(({ status, rest, gained }) => status === "rescued" && (!rest || gained));
  if (!found.length) return hint("There is no rescued token.", column);
  const here = by("inspector").hidden ? -1 : column.units.indexOf(current);
  const at = (unit) => column.units.indexOf(unit);
  go(step > 0 ? found.find((unit) => at(unit) > here) ?? found[0]
    : found.findLast((unit) => here >= 0 && at(unit) < here) ?? found.at(-1));
}

function walk(event) {
  const unit = event.target.unit;
  if (!unit || event.ctrlKey || event.altKey || event.metaKey) return;
  const list = unit.column.units.filter((each) => !each.rest || each.gained), at = list.indexOf(unit);
  const forward = getComputedStyle(event.currentTarget).direction === "rtl" ? "ArrowLeft" : "ArrowRight";
  const back = forward === "ArrowLeft" ? "ArrowRight" : "ArrowLeft";
  const to = {
    [forward]: list[at + 1], [back]: list[at - 1], Home: list[0], End: list.at(-1), Enter: unit,
    ArrowDown: list.find((each) => each.round > unit.round), ArrowUp: list.find((each) => each.round === Math.max(unit.round - 1, 0)),
  };
  if (!(event.key in to)) return;
  event.preventDefault();
  if (to[event.key]) go(to[event.key]);
}

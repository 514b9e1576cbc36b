"use strict";
// All that models wrote is put in as text, never as HTML.
{% include "page.js" %}
{% include "visible.js" %}
{% include "verdicts.js" %}
{% include "describe.js" %}
{% include "tip.js" %}

const { samples } = JSON.parse(by("data").textContent);
const on = (name) => document.body.classList.contains(name);
let threshold = null; // as decoded
let current = null; // the unit that was last gone to
let painting = 0;

const say = (text) => { by("spoken").textContent = text; };
const percent = (p) => p >= 0.0005 ? (100 * p).toFixed(1) + "%" : "<0.1%";
const oneLine = (text) => visible(text).replace(/\s+/g, " ").trim();

const answers = samples.map((sample, number) => ({
  sample, number, box: by("answer-" + number), units: null, dirty: false, movable: canMove(sample),
  rescued: countsOf(sample, null).rescued,
}));
const movable = answers.filter((answer) => answer.movable);

// ---- one answer, drawn when it is opened

function draw(answer) {
  if (answer.units) return;
  const { sample, box } = answer;
  answer.units = unitsOf(sample);
  const list = box.querySelector(".tokens");
  const names = { lang: "", dir: "auto", role: "listbox", "aria-label": "Answer, token by token" };
  for (const [name, value] of Object.entries(names)) list.setAttribute(name, value);
  const rounds = sample.rounds.map((round, r) => {
    const group = element("span", "round");
    group.setAttribute("role", "group");
    const drafted = round.draft_ids.length;
    group.setAttribute("aria-label", `Round ${r + 1}` + (drafted ? `, ${acceptedOf(round)} of ${drafted} accepted` : ""));
    if (drafted) {
      const chip = element("span", "chip", `${acceptedOf(round)} of ${drafted}`);
      chip.append(element("span", "word", " accepted"));
      chip.setAttribute("aria-hidden", "true");
      chip.title = `Round ${r + 1}: ${acceptedOf(round)} of ${drafted} draft tokens accepted`;
      group.append(chip);
    }
    const body = element("span", "body");
    body.setAttribute("role", "none"); // or the tokens would be no options of the list
    group.append(body);
    list.append(group);
    return { group, body };
  });
  for (const unit of answer.units) {
    unit.answer = answer;
    unit.element = element("span", "token" + (unit.rest ? " rest" : ""));
    unit.element.setAttribute("role", "option");
    unit.element.tabIndex = -1;
    unit.element.unit = unit;
    rounds[unit.round].body.append(unit.element);
  }
  if (answer.units.length) answer.units[0].element.tabIndex = 0;
  answer.groups = rounds.map(({ group }) => group);
  list.addEventListener("keydown", (event) => walk(event, answer));
  drawSide(answer);
  paint(answer);
}

// The target's own answer, on grey from where it parts from this one.
function drawSide({ sample, box }) {
  const side = box.querySelector(".own");
  if (!side) return;
  const own = sample.target_text;
  let same = 0;
  while (same < own.length && own[same] === sample.text[same]) same++;
  if (same < own.length && own.charCodeAt(same) >= 0xdc00 && own.charCodeAt(same) <= 0xdfff) same--;
  side.replaceChildren(element("span", "", spaced(own.slice(0, same))));
  if (same < own.length) side.append(element("span", "differs", spaced(own.slice(same))));
  box.querySelector(".parting").textContent = own === sample.text ? "The same text."
    : own.slice(0, same).trim() ? "The same up to the grey part." : "";
}

const spaced = (text) => on("show-spaces")
  ? visible(text).replace(/ /g, "·\u200b").replace(/\t/g, "⇥\u200b").replace(/\n/g, "⏎\n") : visible(text);

// Text, colour and name of each token, by the threshold and the choices of the moment.
function paint(answer) {
  answer.dirty = false;
  const at = answer.movable ? threshold : null;
  const verdicts = answer.sample.rounds.map((round) => verdictsOf(answer.sample, round, at));
  const first = verdicts.findIndex((verdict) => verdict.changed);
  answer.groups.forEach((group, r) => {
    group.classList.toggle("stale", first >= 0 && r > first);
    const chip = group.querySelector(".chip"), round = answer.sample.rounds[r], accepted = acceptedOf(round);
    if (chip) chip.firstChild.data =
      (verdicts[r].changed ? `${accepted} → ${verdicts[r].reach}` : accepted) + ` of ${round.draft_ids.length}`;
  });
  answer.box.querySelector(".changes").textContent = first < 0 ? "" : `· changed from round ${first + 1} on`;
  for (const unit of answer.units) {
    settle(unit, answer.sample, verdicts);
    unit.element.classList.toggle("gained", unit.gained);
    write(unit);
  }
}

// Marks stand under words, not under the spaces before them; a space that counts by itself is made visible.
function write(unit) {
  const spaces = unit.named ? "" : unit.text.match(/^[ \t]*/)[0];
  let ink = unit.text.slice(spaces.length), before = spaced(spaces);
  if (!ink && unit.status !== "agreed") [ink, before] = [spaces.replace(/ /g, "·").replace(/\t/g, "⇥"), ""];
  else ink = unit.status === "agreed" || on("show-spaces") ? spaced(ink) : visible(ink).replace(/\n/g, "⏎\n");
  unit.element.replaceChildren(before, element("span", unit.status + (unit.named ? " named" : ""), ink));
  unit.element.setAttribute("aria-label", `${name(unit.text)}, ${unit.gained ? "would be " : ""}${unit.status}`);
}

const name = (text) => visible(text).trim() || (text.includes("\n") ? "line break" : "space");

// ---- going from token to token

const seen = (unit) => !unit.rest || unit.gained || on("show-rejected");

function go(unit) {
  const { answer } = unit;
  for (const other of answer.units) other.element.tabIndex = other === unit ? 0 : -1;
  unit.element.focus({ preventScroll: true });
  unit.element.scrollIntoView({ block: "nearest" });
}

function walk(event, answer) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const list = answer.units.filter(seen), at = list.indexOf(event.target.unit);
  if (at < 0) return;
  const forward = getComputedStyle(event.currentTarget).direction === "rtl" ? "ArrowLeft" : "ArrowRight";
  const back = forward === "ArrowLeft" ? "ArrowRight" : "ArrowLeft";
  const round = list[at].round;
  const to = {
    [forward]: list[at + 1], [back]: list[at - 1], Home: list[0], End: list.at(-1),
    ArrowDown: list.find((unit) => unit.round > round),
    ArrowUp: list.find((unit) => unit.round === Math.max(round - 1, 0)),
  };
  if (!(event.key in to)) return;
  event.preventDefault();
  if (to[event.key]) go(to[event.key]);
}

// To the next (1) or previous (-1) rescued token, over all answers that are shown, and round again.
function jump(step) {
  const shown = answers.filter((answer) => !answer.box.hidden);
  const start = current ? shown.indexOf(current.answer) : -1;
  for (let n = 0; n <= shown.length; n++) {
    const at = start < 0 ? (step > 0 ? n : shown.length - 1 - n) : start + n * step;
    const answer = shown[((at % shown.length) + shown.length) % shown.length];
    if (!answer || !countsOf(answer.sample, answer.movable ? threshold : null).rescued) continue;
    answer.box.open = true;
    draw(answer);
    if (answer.dirty) paint(answer);
    let found = answer.units.filter((unit) => unit.status === "rescued");
    if (n === 0 && start >= 0) {
      const here = answer.units.indexOf(current);
      found = found.filter((unit) => (answer.units.indexOf(unit) - here) * step > 0);
    }
    if (!found.length) continue;
    const unit = step > 0 ? found[0] : found.at(-1);
    go(unit);
    const wrapped = start >= 0 && (at < 0 || at >= shown.length);
    return say(`Answer ${answer.number + 1}, round ${unit.round + 1}.` + (wrapped ? " Begun again." : ""));
  }
  say("There is no rescued token in the answers shown.");
}

// ---- the threshold

function move(value) {
  threshold = value;
  const stands = value ?? movable[0].sample.threshold;
  by("threshold").value = by("number").value = stands;
  by("reset").disabled = value === null;
  document.body.classList.toggle("moved", value !== null);
  cancelAnimationFrame(painting);
  painting = requestAnimationFrame(recolour);
}

function recolour() {
  for (const answer of answers) {
    answer.dirty = Boolean(answer.units);
    if (answer.dirty && answer.box.open) paint(answer);
  }
  refreshTip();
  const sums = { then: [0, 0], now: [0, 0], changed: 0 };
  for (const { sample } of movable) {
    const then = countsOf(sample, null), now = countsOf(sample, threshold);
    sums.then[0] += then.reach; sums.then[1] += then.rescued;
    sums.now[0] += now.reach; sums.now[1] += now.rescued;
    sums.changed += now.changed > 0;
  }
  by("told").textContent = threshold === null
    ? `As decoded: ${sums.then[0]} draft tokens kept, ${sums.then[1]} rescued.`
    : `At ${threshold}: ${sums.now[0]} draft tokens kept (decoded: ${sums.then[0]}), ` +
      `${sums.now[1]} rescued (${sums.then[1]}); ${sums.changed} of ${movable.length} answers change.`;
}

// ---- controls

function toggle(id, className) {
  const pressed = document.body.classList.toggle(className);
  by(id).setAttribute("aria-pressed", pressed);
  for (const answer of answers.filter(({ units }) => units)) {
    if (className !== "show-spaces") break;
    answer.units.forEach(write);
    drawSide(answer);
  }
  refreshTip();
}

function filter() {
  const wanted = by("filter").value;
  const fits = {
    all: () => true,
    wrong: ({ sample }) => sample.correct === false,
    rescued: ({ rescued }) => rescued > 0,
    differs: ({ sample }) => sample.target_text !== null && sample.target_text !== sample.text,
  }[wanted];
  let count = 0;
  for (const answer of answers) {
    answer.box.hidden = !fits(answer);
    count += !answer.box.hidden;
  }
  by("count").textContent = `${count} of ${answers.length} shown`;
}

const keys = {
  j: () => jump(1), k: () => jump(-1), r: () => toggle("rejected", "show-rejected"),
  w: () => toggle("spaces", "show-spaces"), l: () => toggle("lines", "lines"),
  t: () => movable.length && by("threshold").focus(), "?": () => by("help").showModal(),
};
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") return hideTip();
  if (event.ctrlKey || event.altKey || event.metaKey || by("help").open) return;
  if (event.target.matches("select, input[type=number]") || !Object.hasOwn(keys, event.key)) return;
  event.preventDefault();
  keys[event.key]();
});
by("next").addEventListener("click", keys.j);
by("previous").addEventListener("click", keys.k);
by("rejected").addEventListener("click", keys.r);
by("spaces").addEventListener("click", keys.w);
by("lines").addEventListener("click", keys.l);
by("ask").addEventListener("click", keys["?"]);
by("filter").addEventListener("change", filter);
if (movable.length) {
  by("threshold").addEventListener("input", (event) => move(Number(event.target.value)));
  by("number").addEventListener("change", ({ target }) =>
    move(target.value === "" ? null : Math.min(Math.max(Number(target.value), 0), 1)));
  by("reset").addEventListener("click", () => move(null));
  by("slider").hidden = false;
  move(null);
}
for (const answer of answers)
  answer.box.addEventListener("toggle", () => {
    if (!answer.box.open) return;
    draw(answer);
    if (answer.dirty) paint(answer);
  });
for (const option of by("filter").options)
  option.disabled = option.value === "wrong" && !samples.some(({ correct }) => correct === false) ||
    option.value === "differs" && !samples.some((sample) => sample.target_text !== null);
filter();
watchTips();
if (answers.length) {
  answers[0].box.open = true;
  draw(answers[0]);
}

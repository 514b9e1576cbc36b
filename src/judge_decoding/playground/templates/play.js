"use strict";
// All that models and files say is put in as text, never as HTML.
{% include "visible.js" %}
{% include "verdicts.js" %}
{% include "describe.js" %}

const token = document.querySelector("meta[name=token]").content;
const by = (id) => document.getElementById(id);
const data = JSON.parse(by("data").textContent);
const STRONGEST = ["refused", "dropped", "rescued", "correction", "bonus", "agreed", "rejected", "unused"];
const ENDS = {
  stop: "Ended by itself.", length: "Cut off at the token budget.", context: "Cut off where the target's context is full.",
};
let threshold = null; // of the colours; null is as decoded
let running = null; // the name of the answer that is being decoded, "" before it has one
let last = null; // what was asked last
let turns = []; // of this chat
let current = null; // the unit that was last gone to
let since = 0; // when the present answer was there
const columns = {}; // by name: box, sample, id, units, mark

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

const say = (text) => { by("spoken").textContent = text; };
const percent = (p) => p >= 0.0005 ? (100 * p).toFixed(1) + "%" : "<0.1%";
const name = (text) => visible(text).trim() || (text.includes("\n") ? "line break" : "space");
const rate = (value) => value >= 100 ? value.toFixed(0) : value.toPrecision(3);

function complain(text) {
  by("problem").hidden = !text;
  by("problem").textContent = visible(text);
}

// ---- the server

async function ask(path, body) {
  let reply;
  try {
    reply = await fetch(path, { method: "POST", headers: { Authorization: "Bearer " + token }, body: JSON.stringify(body) });
  } catch {
    throw new Error("The server does not answer; start the command again, and open the address that it prints.");
  }
  if (!reply.ok) throw new Error((await reply.json().catch(() => ({}))).error ?? `The server says ${reply.status}.`);
  return reply;
}

async function* events(reply) {
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) if (line) yield JSON.parse(line);
  }
}

// ---- settings

const pair = () => data.pairs.find(({ name }) => name === by("pair").value);
const rule = () => data.rules.find(({ name }) => name === by("rule").value);

function option(value, text) {
  const made = element("option", "", text ?? value);
  made.value = value;
  return made;
}

// Inputs for the parameters of a rule or a guard.
function parameters(row, box, without = []) {
  box.replaceChildren(...Object.entries(row.parameters).filter(([key]) => !without.includes(key)).map(([key, value]) => {
    const label = element("label", "", visible(key)), input = element("input");
    const kind = row.types[key];
    input.name = key;
    input.type = kind === "bool" ? "checkbox" : kind === "str" ? "text" : "number";
    if (kind === "bool") input.checked = Boolean(value);
    else {
      if (kind !== "str") input.step = kind === "int" ? "1" : "any";
      input.value = value ?? "";
    }
    label.append(" ", input);
    return label;
  }));
}

function spell(row, box, more = {}) {
  const given = { ...more };
  for (const input of box.querySelectorAll("input")) {
    const kind = row.types[input.name], value = input.value.trim();
    if (kind === "bool") given[input.name] = input.checked ? "True" : "False";
    else if (value) given[input.name] = kind === "str" ? (value.includes("'") ? `"${value}"` : `'${value}'`) : value;
  }
  const spelled = Object.entries(given).map(([key, value]) => `${key}=${value}`).join(", ");
  return spelled ? `${row.name}(${spelled})` : row.name;
}

function showRule() {
  const row = rule(), judge = row?.name === "judge";
  by("threshold-field").hidden = !judge;
  by("spelling-field").hidden = Boolean(row);
  by("rule-summary").textContent = row ? visible(row.summary.replace(/``/g, "")) : "Rules joined by | keep what one of them keeps.";
  if (row) parameters(row, by("rule-parameters"), judge ? ["threshold"] : []);
  else by("rule-parameters").replaceChildren();
  recolour();
}

function showPair() {
  const chosen = pair(), judged = chosen.threshold !== null;
  by("models").textContent = visible(chosen.models);
  const fits = (row) => judged || !row.needs.includes("judge head");
  by("rule").replaceChildren(...data.rules.filter(fits).map((row) => option(row.name)), option("", "several, spelled …"));
  by("rule").value = judged ? "judge" : "exact";
  by("threshold").value = by("threshold-number").value = chosen.threshold ?? 1;
  for (const key of ["num_draft_tokens", "temperature", "max_new_tokens"]) by(key).value = chosen[key];
  by("max_new_tokens").max = data.most_tokens;
  by("backend").value = chosen.backend;
  by("as-chat").disabled = !chosen.chat;
  by(chosen.chat ? "as-chat" : "as-text").checked = true;
  by("examples").replaceChildren(...chosen.examples.map((text) => {
    const made = element("button", "", text);
    made.type = "button";
    made.addEventListener("click", () => { by("prompt").value = text; submit(); });
    return made;
  }));
  showRule();
  newChat();
}

function settings() {
  const number = (id) => by(id).value === "" ? null : Number(by(id).value);
  const row = rule(), chosen = pair();
  const spelled = row ? spell(row, by("rule-parameters"), row.name === "judge" ? { threshold: by("threshold-number").value || 1 } : {})
    : by("spelling").value.trim();
  if (!spelled) throw new Error("The rule is empty; write one, as in judge(threshold=0.7) | top_k(k=4).");
  return {
    pair: chosen.name, rule: spelled,
    guards: [...document.querySelectorAll(".guard")].filter((box) => box.querySelector(".check input").checked)
      .map((box) => spell(data.guards.find(({ name }) => name === box.dataset.name), box.querySelector(".parameters"))),
    num_draft_tokens: number("num_draft_tokens"), temperature: number("temperature"), seed: number("seed"),
    max_new_tokens: number("max_new_tokens"), backend: by("backend").value, with_target: by("with_target").checked,
  };
}

// ---- asking

const asChat = () => by("as-chat").checked;

function newChat() {
  turns = [];
  showMode();
  showEarlier();
}

function showMode() {
  by("system").hidden = !asChat() || turns.length > 0;
  by("new-chat").hidden = !asChat() || !turns.length;
  by("prompt").placeholder = asChat() ? "Ask something …" : "The target goes on from this text …";
}

function showEarlier() {
  const before = turns.slice(0, -1);
  by("earlier").hidden = !before.length;
  by("earlier").querySelector("summary").textContent = `Earlier in this chat (${before.length})`;
  by("earlier").querySelector("div").replaceChildren(...before.map(({ user, assistant }) => {
    const box = element("article");
    box.append(element("p", "text soft", visible(user)), element("p", "text", visible(assistant)));
    return box;
  }));
}

function submit() {
  const text = by("prompt").value;
  if (running !== null || !text.trim()) return by("prompt").focus();
  if (text.length > data.most_text) return complain("The question is too long; shorten it.");
  const system = by("system").value.trim();
  const before = turns.flatMap(({ user, assistant }) => [{ role: "user", content: user }, { role: "assistant", content: assistant }]);
  const first = system ? [{ role: "system", content: system }] : [];
  last = { text, chat: asChat(), body: asChat() ? { messages: [...first, ...before, { role: "user", content: text }] } : { prompt: text } };
  begin();
}

function retry() {
  if (!last || running !== null) return;
  if (last.chat && turns.at(-1)?.user === last.text) turns.pop();
  begin();
}

async function begin() {
  for (const name of ["target", "judge", "whatif"]) clear(name);
  columns.judge.box.scrollTop = 0;
  by("whatif").hidden = true;
  const asked = last;
  const found = await stream("/answer", () => ({ ...last.body, settings: settings() }), (event) => event.column);
  if (found && asked.chat && asked === last) {
    turns.push({ user: asked.text, assistant: found.text });
    by("prompt").value = "";
    showMode();
    showEarlier();
  }
}

function whatIf(unit = current) {
  if (running !== null) return say("Wait until the answer has ended.");
  if (!unit || !canReject(unit)) return say("This token is the target's own; go to a rescued one.");
  const { column } = unit, round = column.sample.rounds[unit.round], place = unit.parts[0];
  const body = { answer: column.id, token: placeOf(unit) };
  const before = column.sample.rounds.flatMap(({ pieces }) => pieces).slice(0, body.token);
  const own = column.sample.vocabulary[round.target_ids[place]] ?? "";
  clear("whatif");
  by("whatif").hidden = false;
  by("whatif-title").textContent = `What if “${name(unit.text)}” had been “${name(own)}”`;
  before.forEach((text) => columns.whatif.list.append(element("span", "soft", visible(text))));
  by("whatif").scrollIntoView({ block: "nearest" });
  stream("/what-if", () => ({ ...body, settings: settings() }), () => "whatif");
}

// The events of an answer; gives the sample, or null if there was none.
async function stream(path, body, columnOf) {
  complain("");
  running = "";
  close();
  let sample = null, active = null;
  const began = {};
  busy();
  try {
    const asked = body();
    by("asked").textContent = visible(last.text);
    by("present").hidden = false;
    by("welcome").hidden = true;
    if (path === "/answer") by("target").hidden = !asked.settings.with_target;
    for await (const event of events(await ask(path, asked))) {
      const column = columns[columnOf(event)];
      if (event.type === "id") {
        running = event.id;
        if (path === "/answer") title(event.rule);
        busy();
      } else if (event.type === "waiting") state("Waiting: another page is decoding.");
      else if (event.type === "note") state(event.text + " …");
      else if (event.type === "error") complain(event.error);
      else if (event.type === "start") {
        active = column;
        state("Reading the prompt …", "");
        column.box.classList.add("busy");
        add(column, event.pieces, event.pieces.map(() => "correction"));
      } else if (event.type === "round") {
        column.state.textContent = "";
        began[column.name] = event.figures;
        add(column, event.pieces, column.name === "target" ? event.pieces.map(() => "plain") : event.causes);
        figures(column, event.figures);
      } else if (event.type === "end") {
        column.box.classList.remove("busy");
        column.list.append(visible(event.tail));
        column.state.textContent = ENDS[event.finish_reason] ?? "Stopped.";
        if (column.name === "target") column.figures = began.target;
      } else if (event.type === "answer") {
        sample = event.sample;
        finish(path === "/answer" ? columns.judge : columns.whatif, sample, began);
      }
    }
  } catch (error) {
    complain(error.message);
  }
  if (active && !sample) state("", "");
  for (const { box } of Object.values(columns)) box.classList.remove("busy");
  running = null;
  busy();
  return sample;

  function state(text, elsewhere) {
    for (const column of Object.values(columns)) {
      if (column.name === "whatif" ? path === "/answer" : path === "/what-if") continue;
      if (elsewhere === undefined ? !began[column.name] : column === active) column.state.textContent = visible(text);
    }
  }
}

function title(spelled) {
  const judged = /(^|\W)judge(\W|$)/.test(spelled);
  by("judge-title").replaceChildren(judged ? "Judge decoding " : "Speculative decoding ", element("span", "soft", visible(spelled)));
}

function busy() {
  by("ask").disabled = by("retry").disabled = running !== null;
  by("stop").disabled = !running;
  for (const id of ["copy", "right"]) by(id).disabled = running !== null || !columns.judge.sample;
  for (const kind of ["html", "json"]) {
    const link = by("as-" + kind), there = running === null && columns.judge.sample;
    link.toggleAttribute("aria-disabled", !there);
    if (there) link.href = `/answers/${columns.judge.id}.${kind}?token=${token}`;
    else link.removeAttribute("href");
  }
}

async function stop() {
  if (running) await ask("/stop", { answer: running }).catch((error) => complain(error.message));
}

// ---- columns

function clear(name) {
  const box = by(name);
  columns[name] = {
    name, box, list: box.querySelector(".tokens"), state: box.querySelector(".state"), sample: null, id: null, units: [],
    mark: null, figures: null,
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
function finish(column, sample, began) {
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
  const now = began[column.name], own = column.name === "judge" && columns.target.figures;
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
    const { kept, rest } = verdicts[unit.round];
    const offset = sample.rounds[unit.round].draft_ids.length - rest.length;
    const statuses = unit.parts.map((i) => unit.rest ? rest[i - offset] : kept[i]);
    unit.status = STRONGEST.find((status) => statuses.includes(status));
    unit.gained = unit.rest && !["rejected", "unused"].includes(unit.status);
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
  if (verdict === "wrong" && (!unit || unit.rest)) return say("Go to a token of the answer first.");
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
  column.state.textContent = column.mark ? said : "The verdict is taken back.";
  say(column.state.textContent);
}

// To the next (1) or previous (-1) rescued token of the column that was last gone to.
function jump(step) {
  const column = current?.column.sample ? current.column : columns.judge;
  const found = (column?.units ?? []).filter(({ status, rest, gained }) => status === "rescued" && (!rest || gained));
  if (!found.length) return say("There is no rescued token.");
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

async function copy() {
  if (!columns.judge.sample) return;
  try {
    await navigator.clipboard.writeText(columns.judge.sample.text.trim());
    say("Copied.");
    by("copy").firstChild.data = "Copied ";
    setTimeout(() => { by("copy").firstChild.data = "Copy "; }, 1500);
  } catch {
    complain("The browser does not let this page copy; select the text instead.");
  }
}

// ---- the page

const keys = {
  "/": () => by("prompt").focus(), j: () => jump(1), k: () => jump(-1), r: retry, c: copy, w: () => whatIf(),
  m: () => by("wrong").disabled || by("inspector").hidden || mark("wrong", current.column, current),
  n: () => mark("right", columns.judge), u: () => mark("none", (columns.whatif.mark && current?.column) || columns.judge),
  t: () => by("threshold-field").hidden || (by("settings").open = true, by("threshold").focus()), "?": () => by("keys").showModal(),
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || by("keys").open) return;
  if (event.key === "Escape") return void (running ? stop() : close() && current.element.focus());
  if (event.target.matches("textarea, select, input:not([type=checkbox], [type=radio], [type=range])")) return;
  if (!Object.hasOwn(keys, event.key)) return;
  event.preventDefault();
  keys[event.key]();
});
by("composer").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
by("prompt").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submit();
});
const clicks = {
  stop, retry, copy, close, help: keys["?"], "new-chat": () => { newChat(); by("prompt").focus(); }, reject: () => whatIf(),
  wrong: keys.m, undo: () => mark("none", current.column), right: () => mark(columns.judge.mark?.verdict === "right" ? "none" : "right", columns.judge),
};
for (const [id, action] of Object.entries(clicks)) by(id).addEventListener("click", () => action());
for (const id of ["judge", "whatif"]) {
  by(id).querySelector(".tokens").addEventListener("keydown", walk);
  by(id).querySelector(".tokens").addEventListener("click", ({ target }) => {
    const found = target.closest(".token");
    if (found && getSelection().isCollapsed) go(found.unit);
  });
}
by("mode").addEventListener("change", showMode);
by("pair").addEventListener("change", showPair);
by("rule").addEventListener("change", showRule);
by("threshold").addEventListener("input", ({ target }) => { by("threshold-number").value = target.value; recolour(); });
by("threshold-number").addEventListener("input", ({ target }) => { by("threshold").value = target.value; recolour(); });

by("pair").append(...data.pairs.map(({ name }) => option(name, visible(name))));
by("pair-field").hidden = data.pairs.length < 2;
by("backend").append(...data.backends.map((name) => option(name)));
by("guards").append(...data.guards.map((row) => {
  const box = element("div", "guard"), label = element("label", "check"), input = element("input"), inputs = element("div", "parameters");
  box.dataset.name = row.name;
  input.type = "checkbox";
  label.append(input, row.name);
  inputs.hidden = true;
  parameters(row, inputs);
  input.addEventListener("change", () => { inputs.hidden = !input.checked; });
  box.append(label, element("div", "soft", row.summary.replace(/``/g, "")), inputs);
  return box;
}));
by("legend").append(...Object.entries(data.causes).map(([cause, meaning]) => {
  const row = element("div"), term = element("dt");
  term.append(element("span", cause, cause));
  row.append(term, element("dd", "", meaning));
  return row;
}));
for (const name of ["target", "judge", "whatif"]) clear(name);
by("settings").open = matchMedia("(min-width: 60.01rem)").matches;
by("right").hidden = by("wrong").hidden = !data.cases;
showPair();
busy();

"use strict";
// All that models and files say is put in as text, never as HTML.
{% include "page.js" %}
{% include "visible.js" %}
{% include "verdicts.js" %}
{% include "describe.js" %}
{% include "columns.js" %}
{% include "replay.js" %}

const token = document.querySelector("meta[name=token]").content;
const data = JSON.parse(by("data").textContent);
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

const say = (text) => { by("spoken").textContent = text; };
// The same for the eye: why a key did nothing.
const hint = (text, column = columns.judge) => { say(text); if (column) column.state.textContent = text; };
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
    throw new Error("The server does not respond; start the command again, and open the address that it prints.");
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

// A sentence of a docstring, in which code is between double backquotes.
const prose = (text) => text.split("``").map((part, i) => i % 2 ? element("code", "", visible(part)) : visible(part));

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
  by("rule-summary").replaceChildren(...prose(row ? row.summary : "Rules joined by ``|`` keep a token that any of them keeps."));
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
  by("prompt").placeholder = asChat() ? "Ask something …" : "The target continues this text …";
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
  begin(last.chat && turns.at(-1)?.user === last.text);
}

// Ask; `again` replaces the last turn of the chat.
async function begin(again = false) {
  const asked = last;
  const found = await stream("/answer", () => ({ ...asked.body, settings: settings() }), (event) => event.column, (body) => {
    for (const name of ["target", "judge", "whatif"]) clear(name);
    by("asked").textContent = visible(asked.text);
    by("whatif").hidden = true;
    by("present").hidden = false;
    by("welcome").hidden = true;
    by("target").hidden = !body.settings.with_target;
  });
  if (found && asked.chat) {
    if (again) turns.pop();
    turns.push({ user: asked.text, assistant: found.text });
    if (!again) by("prompt").value = "";
    showMode();
    showEarlier();
  }
}

function whatIf(unit = current) {
  if (running !== null) return say("Wait until the answer has ended.");
  if (by("inspector").hidden) return hint("Select a token first: click on one, or press J.");
  if (!unit || !canReject(unit)) return hint("This is the target's own token; select a rescued one.", unit.column);
  const { column } = unit, round = column.sample.rounds[unit.round], place = unit.parts[0];
  const body = { answer: column.id, token: placeOf(unit) };
  const before = column.sample.rounds.flatMap(({ pieces }) => pieces).slice(0, body.token);
  const own = column.sample.vocabulary[round.target_ids[place]] ?? "";
  stream("/what-if", () => ({ ...body, settings: settings() }), () => "whatif", () => {
    clear("whatif");
    by("whatif").hidden = false;
    by("whatif-title").textContent = `What if “${name(unit.text)}” had been “${name(own)}”`;
    before.forEach((text) => columns.whatif.list.append(element("span", "soft", visible(text))));
    by("whatif").scrollIntoView({ block: "nearest" });
  });
}

// Ask, then show the events of the answer as they come; gives the sample, or null if there is none.
async function stream(path, body, columnOf, prepare) {
  endReplay();
  complain("");
  running = "";
  busy();
  let sample = null, ended = false;
  const now = {}; // the last figures of each column
  const mine = () => Object.values(columns).filter(({ name }) => (name === "whatif") === (path === "/what-if"));
  const state = (text, which = mine().filter(({ ended }) => !ended)) => which.forEach((column) => { column.state.textContent = visible(text); });
  const take = {
    id(event) {
      running = event.id;
      if (path === "/answer") title(event.rule);
      busy();
    },
    waiting: () => state("Waiting: another page is decoding."),
    note: (event) => state(event.text + " …"),
    fallback(event) {
      by("note").hidden = false;
      by("note").textContent = visible(event.text);
    },
    start(event, column) {
      state("");
      state("Reading the prompt …", [column]);
      column.box.classList.add("busy");
      add(column, event.pieces, event.pieces.map(() => "correction"));
    },
    round(event, column) {
      column.state.textContent = "";
      now[column.name] = event.figures;
      column.heard.push(event);
      hear(column, event);
    },
    end(event, column) {
      column.box.classList.remove("busy");
      column.ended = true;
      column.list.append(visible(event.tail));
      state(ENDS[event.finish_reason] ?? "Stopped.", [column]);
      if (column.name === "target") column.figures = now.target;
    },
    nothing: () => state("Stopped."),
    error(event) {
      state("");
      complain(event.error);
    },
    answer(event) {
      sample = event.sample;
      finish(path === "/answer" ? columns.judge : columns.whatif, sample, now);
    },
  };
  try {
    const asked = body(), reply = await ask(path, asked);
    close();
    by("note").hidden = true;
    prepare(asked);
    for await (const event of events(reply)) {
      take[event.type](event, columns[columnOf(event)]);
      ended ||= ["answer", "nothing", "error"].includes(event.type);
    }
    if (!ended) throw new TypeError("the end is missing");
  } catch (error) {
    complain(error instanceof TypeError ? "The answer was cut off; check in the terminal whether the command is still running." : error.message);
  }
  for (const { box } of Object.values(columns)) box.classList.remove("busy");
  running = null;
  busy();
  return sample;
}

function title(spelled) {
  const judged = /(^|\W)judge(\W|$)/.test(spelled);
  by("judge-title").replaceChildren(judged ? "Judge decoding " : "Speculative decoding ", element("span", "soft", visible(spelled)));
}

function busy() {
  by("ask").disabled = by("retry").disabled = running !== null;
  by("stop").disabled = !running;
  by("replay").disabled = !canReplay();
  by("replay").setAttribute("aria-pressed", Boolean(film));
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
  "/": () => by("prompt").focus(), p: replay, j: () => jump(1), k: () => jump(-1), r: retry, c: copy, w: () => whatIf(),
  m: () => by("inspector").hidden ? hint("Select a token first: click on one, or press J.")
    : by("wrong").disabled || mark("wrong", current.column, current),
  n: () => mark("right", columns.judge), u: () => mark("none", (columns.whatif.mark && current?.column) || columns.judge),
  t: () => by("threshold-field").hidden || (by("settings").open = true, by("threshold").focus()), "?": () => by("keys").showModal(),
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || by("keys").open) return;
  if (event.key === "Escape") return void (running ? stop() : endReplay() || (close() && current.element.focus()));
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
  stop, retry, replay, copy, close, help: keys["?"], "new-chat": () => { newChat(); by("prompt").focus(); }, reject: () => whatIf(),
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
  const summary = element("div", "soft");
  summary.append(...prose(row.summary));
  box.dataset.name = row.name;
  input.type = "checkbox";
  label.append(input, row.name);
  inputs.hidden = true;
  parameters(row, inputs);
  input.addEventListener("change", () => { inputs.hidden = !input.checked; });
  box.append(label, summary, inputs);
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

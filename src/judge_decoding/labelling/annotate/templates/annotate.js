"use strict";
// All that comes from the server is put in as text, never as HTML.
const IDLE = 120000; // ms without a key or a touch after which the time of a case stands still
const RETRY = 1500; // ms
{% include "page.js" %}
const token = document.querySelector("meta[name=token]").content;
const answer = by("answer");
let state = null;
let items = []; // the elements of the pieces
let anchor = 0, cursor = 0, extending = false, dragging = false, busy = false;
let spent = 0, last = performance.now(), touched = last;

{% include "visible.js" %}
const named = (text) => text === null ? "end of answer"
  : text.trim() ? visible(text.trim()) : text.includes("\n") ? "line break" : "space";

function say(text, more = "") {
  by("status").textContent = text;
  by("spoken").textContent = text + " " + more;
}

function complain(text) {
  by("problem").hidden = !text;
  by("problem").textContent = text;
}

function tick() {
  const now = performance.now();
  if (!document.hidden && now - touched < IDLE) spent += now - last;
  last = now;
  const seconds = Math.floor(spent / 1000);
  by("clock").textContent = Math.floor(seconds / 60) + ":" + String(seconds % 60).padStart(2, "0");
}

async function ask(path, body) {
  const options = { headers: { Authorization: "Bearer " + token } };
  if (body) Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  const reply = await fetch(path, options);
  return { ok: reply.ok, code: reply.status, data: await reply.json() };
}

// A server that was stopped is asked until it is back: what was decided meanwhile is not lost.
async function insist(path, body) {
  for (;;) {
    try {
      const reply = await ask(path, body);
      complain("");
      return reply;
    } catch {
      complain("The server does not respond" + (body ? ", so your last decision is not saved yet" : "") + ". Start the command again with the same --out and --port; this page then continues.");
      await new Promise((done) => setTimeout(done, RETRY));
    }
  }
}

async function load(said = "") {
  busy = true;
  const { ok, data } = await insist("/state");
  busy = false;
  if (ok) show(data, said); else complain(data.error);
}

async function decide(action, said) {
  if (busy || !state || (!state.case && !["undo", "reopen"].includes(action))) return;
  if (action === "undo" && !state.can_undo) return say("There is nothing to undo.");
  tick();
  const key = Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, "0")).join("");
  const body = { action, key, turn: state.turn, seconds: spent / 1000 };
  if (action === "mark") [body.first, body.last] = [Math.min(anchor, cursor), Math.max(anchor, cursor)];
  busy = true;
  document.body.setAttribute("aria-busy", "true");
  const { ok, code, data } = await insist("/decide", body);
  busy = false;
  document.body.removeAttribute("aria-busy");
  if (ok) show(data, said);
  else if (code === 409) show(data, data.error);
  else complain(data.error);
}

function show(data, said) {
  state = data;
  complain(data.problem);
  const { case: item, done, total, skipped } = data;
  by("progress").max = total;
  by("progress").value = done;
  by("case").hidden = !item;
  by("end").hidden = Boolean(item);
  by("undo").disabled = by("undo-last").disabled = !data.can_undo;
  const title = item ? `Case ${done + 1} of ${total}` : `${done} of ${total} done`;
  by("title").textContent = title;
  document.title = title + " · Annotate";
  spent = 0;
  last = touched = performance.now();
  tick();
  if (!item) {
    by("summary").textContent = `${done - skipped} decided, ${skipped} skipped.`;
    by("reopen").hidden = !skipped;
    say(said, "All cases are decided.");
    by("finished").focus(); // not a button: one more press of Enter must do nothing
    return;
  }
  by("question").textContent = visible(item.question);
  by("with-reference").hidden = !item.reference;
  by("reference").textContent = visible(item.reference);
  setExtending(false);
  draw(item);
  if (item.selected) select(...item.selected); else selectNothing();
  answer.focus({ preventScroll: true });
  window.scrollTo(0, 0);
  for (const id of ["question", "reference"]) by(id).scrollTop = 0;
  say(said, `${title}. Question: ${item.question.slice(0, 1000)}`);
}

function draw(item) {
  const texts = item.ended ? [...item.pieces, null] : item.pieces;
  items = texts.map((text, number) => {
    const piece = element("span", text === null ? "piece end" : "piece");
    piece.id = "piece-" + number;
    piece.dataset.number = number;
    piece.setAttribute("role", "option");
    const lead = text === null || !text.trim() ? "" : text.match(/^\s*/)[0];
    const ink = text === null ? "end of answer" : text.trim() ? visible(text.slice(lead.length))
      : text.includes("\n") ? text.replace(/\n/g, "↵\n") : "␣".repeat(text.length);
    piece.append(number ? lead : "", element("span", "ink", ink));
    const choice = item.choices && item.choices[number][0];
    const other = choice && (text === null ? choice[0] !== null : choice[0] === null || choice[0].trim() !== text.trim());
    if (other) piece.classList.add("other");
    piece.setAttribute("aria-label", named(text) + (other ? "; the target would say " + named(choice[0]) : ""));
    return piece;
  });
  answer.replaceChildren(...items);
  by("choices").hidden = !item.choices;
}

function select(from, to) {
  if (!items.length) return answer.removeAttribute("aria-activedescendant");
  anchor = Math.max(0, Math.min(from, items.length - 1));
  cursor = Math.max(0, Math.min(to, items.length - 1));
  items.forEach((piece, number) => {
    const chosen = number >= Math.min(anchor, cursor) && number <= Math.max(anchor, cursor);
    piece.classList.toggle("chosen", chosen);
    piece.classList.toggle("cursor", number === cursor);
    piece.setAttribute("aria-selected", chosen);
  });
  answer.setAttribute("aria-activedescendant", items[cursor].id);
  const dock = by("dock").getBoundingClientRect(), place = items[cursor].lastChild.getBoundingClientRect();
  if (place.top < 0 || place.bottom > dock.top) items[cursor].scrollIntoView({ block: "center" });
  tell();
}

// What an earlier decision chose is selected again; otherwise nothing is, so that a stray Enter marks nothing.
function selectNothing() {
  anchor = cursor = -1;
  answer.removeAttribute("aria-activedescendant");
  tell();
}

function tell() {
  const choices = state.case.choices && state.case.choices[cursor];
  by("choices").replaceChildren();
  if (!choices) return;
  by("choices").append("The target here: ");
  choices.forEach(([text, probability], number) => {
    if (number) by("choices").append(" · ");
    by("choices").append(element("code", "", named(text)), " " + Math.round(100 * probability) + "%");
  });
  if (!choices.length) by("choices").append("nothing in particular");
}

function move(to, extend) {
  select((extend || extending) && anchor >= 0 ? anchor : to, to);
}

// The piece above or below the cursor: on the next line that has any, the one nearest to the cursor's middle.
function lineAway(step) {
  if (cursor < 0) return 0;
  const box = (piece) => piece.lastChild.getClientRects()[0];
  const height = (piece) => (box(piece).top + box(piece).bottom) / 2;
  const here = box(items[cursor]), x = (here.left + here.right) / 2, y = height(items[cursor]);
  let best = cursor, line = null, distance = Infinity;
  for (let i = cursor + step; i >= 0 && i < items.length; i += step) {
    const level = height(items[i]);
    if (Math.abs(level - y) < here.height / 2) continue;
    if (line !== null && Math.abs(level - line) > here.height / 2) break;
    line ??= level;
    const away = Math.max(box(items[i]).left - x, x - box(items[i]).right, 0);
    if (away < distance) [best, distance] = [i, away];
  }
  return best;
}

function setExtending(on) {
  extending = on;
  by("extend").setAttribute("aria-pressed", on);
}

function mark() {
  if (!items.length) return say("There is nothing to mark in this answer.");
  if (cursor < 0) return say("Select the wrong tokens first.");
  const first = Math.min(anchor, cursor);
  decide("mark", "Saved: wrong at “" + named(first < state.case.pieces.length ? state.case.pieces[first] : null) + "”.");
}

const actions = {
  mark,
  correct: () => decide("correct", "Saved: all correct."),
  skip: () => decide("skip", "Skipped."),
  undo: () => decide("undo", "Undone: decide this case again."),
  "undo-last": () => decide("undo", "Undone: decide this case again."),
  reopen: () => decide("reopen", "The skipped cases are back."),
  help: () => by("keys").showModal(),
  extend() {
    setExtending(!extending);
    answer.focus({ preventScroll: true });
    say(extending ? "Now go to the last wrong token." : "One token only.");
    if (!extending && cursor >= 0) select(cursor, cursor);
  },
};
for (const [id, action] of Object.entries(actions)) by(id).addEventListener("click", action);

document.addEventListener("keydown", (event) => {
  touched = performance.now();
  if (event.ctrlKey || event.altKey || event.metaKey || by("keys").open) return;
  const letter = { n: "correct", s: "skip", u: "undo", e: "extend", "?": "help" }[event.key.toLowerCase()];
  if (letter) {
    event.preventDefault();
    // A key held down must not label case after case.
    if (!event.repeat && (state?.case || letter === "undo" || letter === "help")) actions[letter]();
    return;
  }
  if (document.activeElement !== answer && document.activeElement !== document.body) return;
  if (!state?.case || !items.length) return;
  const onward = getComputedStyle(answer).direction === "rtl" ? -1 : 1;
  const to = { ArrowRight: cursor + onward, ArrowLeft: cursor - onward, Home: 0, End: items.length - 1 }[event.key];
  if (to !== undefined) move(to, event.shiftKey);
  else if (event.key === "ArrowUp" || event.key === "ArrowDown") move(lineAway(event.key === "ArrowUp" ? -1 : 1), event.shiftKey);
  else if (event.key === "Escape") { setExtending(false); if (cursor >= 0) select(cursor, cursor); }
  else if (event.key === "Enter") { if (!event.repeat) mark(); }
  else return;
  event.preventDefault();
});

const under = (event) => document.elementFromPoint(event.clientX, event.clientY)?.closest("#answer .piece");
answer.addEventListener("pointerdown", (event) => {
  const piece = under(event);
  if (!piece || event.button !== 0) return;
  move(Number(piece.dataset.number), event.shiftKey);
  dragging = true;
});
document.addEventListener("pointermove", (event) => {
  touched = performance.now();
  const piece = dragging && under(event);
  if (piece && Number(piece.dataset.number) !== cursor) select(anchor, Number(piece.dataset.number));
});
for (const name of ["pointerup", "pointercancel"]) document.addEventListener(name, () => { dragging = false; });
for (const name of ["pointerdown", "wheel", "touchmove"]) document.addEventListener(name, () => { touched = performance.now(); }, { passive: true });
answer.addEventListener("dblclick", (event) => { if (under(event)) mark(); });
document.addEventListener("visibilitychange", tick);
setInterval(tick, 1000);
load();

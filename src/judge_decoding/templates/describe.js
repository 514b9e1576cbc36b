// What is known about a token, as elements; the page has `element`, `percent` and the present `threshold`.

// The lines about part `i` of a unit: a kept token, or one of the rest of the draft.
function describe(unit, i) {
  const { sample } = unit.answer, round = sample.rounds[unit.round], accepted = acceptedOf(round);
  const id = (unit.rest ? round.draft_ids : round.token_ids)[i];
  const lines = [];
  const line = (term, value) => lines.push([term, value]);
  const cause = !unit.rest ? round.causes[i] : unit.status === "unused" ? "unused" : "rejected";
  const title = unit.parts.length > 1 ? sample.vocabulary[id] ?? unit.text : unit.text;
  const head = element("p", "head");
  head.append(element("code", "", quoted(title)), element("span", cause, cause === "unused" ? "after the end" : cause));
  if (unit.status !== cause) head.append(element("span", "", "→ " + STATUS[unit.status] + ` at ${threshold}`));
  const drafted = i < round.draft_ids.length && (unit.rest || i < accepted);
  if (cause === "correction") line("in place of", `${quoted(round.draft_pieces[i] || sample.vocabulary[round.draft_ids[i]] || "part of a character")}${scored(round, i)}`);
  else if (drafted && round.scores) line(sample.threshold === null ? "score" : "judge",
    score(round.scores[i]) + (sample.threshold === null ? "" : compared(round.scores[i], threshold ?? sample.threshold)));
  if (round.rescuers[i] && !unit.rest) line("rescued by", round.rescuers[i]);
  const own = round.target_ids[i];
  if (drafted && own !== undefined && own !== id) line("target's own", quoted(sample.vocabulary[own] ?? String(own)));
  const details = round.details;
  if (details && drafted) {
    line("target", percent(details.target_probs[i]));
    if (details.draft_probs) line("draft", percent(details.draft_probs[i]));
    line("rank", details.ranks[i] === null ? "ruled out" : String(details.ranks[i] + 1));
  }
  if (details && i < round.draft_ids.length) line("entropy", details.entropies[i].toFixed(2) + " nats");
  line("position", `round ${unit.round + 1}, token ${i + 1} of ` +
    (drafted ? `${round.draft_ids.length} drafted` : String(round.token_ids.length)));
  const list = element("dl");
  for (const [term, value] of lines) {
    const row = element("div");
    row.append(element("dt", "", term), element("dd", "", value));
    list.append(row);
  }
  if (!details || i >= round.draft_ids.length) return [head, list];
  const bars = element("ol");
  for (const [other, probability] of details.alternatives[i]) {
    const row = element("li", other === id ? "this" : "");
    const bar = element("span", "share");
    bar.style.setProperty("--share", probability);
    row.append(element("code", "", quoted(sample.vocabulary[other] ?? String(other))), bar,
      element("span", "", percent(probability)));
    bars.append(row);
  }
  return [head, list, element("p", "soft", "The target's choices here"), bars];
}

const STATUS = {
  refused: "rejected", dropped: "not reached", rescued: "rescued", agreed: "agreed", rejected: "rejected",
};
const quoted = (text) => "“" + visible(text).replace(/\n/g, "⏎").replace(/\t/g, "⇥").replace(/ /g, "·") + "”";
// Enough digits to tell a score from the threshold it stands beside.
const score = (value) => value > 0.9995 && value < 1 || value < 0.0005 && value > 0 ? value.toPrecision(6) : value.toFixed(3);
const compared = (value, limit) => limit === 0 || value > limit ? ` above ${limit}` : ` not above ${limit}`;
const scored = (round, i) => round.scores ? `, judge ${score(round.scores[i])}` : "";

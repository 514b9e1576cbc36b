// What the stored numbers say: no element of the page is touched here.

const isDraft = (cause) => cause === "agreed" || cause === "rescued";
const acceptedOf = (round) => round.causes.filter(isDraft).length;

// Whether standard verification keeps draft token i; null where the file does not tell.
function agreedAt(sample, round, i) {
  if (round.details) return round.details.agreed[i];
  if (i < acceptedOf(round)) return round.causes[i] === "agreed";
  return sample.temperature === 0 && round.target_ids.length ? round.draft_ids[i] === round.target_ids[i] : null;
}

// Another threshold can be looked at where the judge alone decided and each draft token's verdict can be told.
const canMove = (sample) => sample.threshold !== null &&
  sample.rounds.some((round) => round.scores) &&
  sample.rounds.every((round) => !round.draft_ids.length ||
    (round.scores && round.draft_ids.every((_, i) => agreedAt(sample, round, i) !== null)));

// What became of a round's tokens at a threshold, null being as decoded: `kept`, a status for each kept token; `rest`,
// one for each other draft token ("unused" after the answer's end); `reach`, how many draft tokens stay.
function verdictsOf(sample, round, threshold) {
  const accepted = acceptedOf(round), drafted = round.draft_ids.length;
  // Nothing counts after the end of the answer, which can come inside the draft.
  const end = round.draft_ids.findIndex((id) => sample.end_ids.includes(id));
  const limit = isDraft(round.causes.at(-1)) ? accepted : end < 0 ? drafted : end + 1;
  let reach = accepted;
  if (threshold !== null && round.scores) {
    const stays = (i) => agreedAt(sample, round, i) || threshold === 0 || round.scores[i] > threshold;
    for (reach = 0; reach < limit && stays(reach);) reach++;
  }
  const kept = round.causes.map((cause, i) =>
    reach === accepted || i < Math.min(reach, accepted) ? cause : i === reach ? "refused" : "dropped");
  const rest = [];
  for (let i = accepted; i < drafted; i++)
    rest.push(i < reach ? (agreedAt(sample, round, i) ? "agreed" : "rescued") : reach === limit ? "unused" : "rejected");
  return { kept, rest, reach, changed: reach !== accepted };
}

// Counts over an answer: draft tokens that stay, those rescued, and rounds that end elsewhere than they did.
function countsOf(sample, threshold) {
  const counts = { reach: 0, rescued: 0, changed: 0 };
  for (const round of sample.rounds) {
    const { kept, rest, reach, changed } = verdictsOf(sample, round, threshold);
    counts.reach += reach;
    counts.rescued += [...kept, ...rest].filter((status) => status === "rescued").length;
    counts.changed += changed;
  }
  return counts;
}

// The tokens as they are shown. One that ends inside a character has no text; it joins the token that completes it.
function unitsOf(sample) {
  const special = new Set(sample.special_ids);
  const units = [];
  sample.rounds.forEach((round, r) => {
    const accepted = acceptedOf(round);
    const add = (ids, pieces, from, rest) => {
      let parts = [];
      for (let i = from; i < ids.length; i++) {
        const name = special.has(ids[i]) ? sample.vocabulary[ids[i]] ?? "special token" : "";
        parts.push(i);
        if (!name && !pieces[i] && i + 1 < ids.length && !special.has(ids[i + 1])) continue;
        const text = pieces[i] || name || ids.slice(parts[0], i + 1).map((id) => sample.vocabulary[id] ?? "�").join("");
        units.push({ round: r, rest, parts, text, named: !pieces[i], status: "", element: null });
        parts = [];
      }
    };
    add(round.token_ids, round.pieces, 0, false);
    add(round.draft_ids, round.draft_pieces, accepted, true);
  });
  return units;
}

// A unit of several tokens has the status that comes first here.
const STRONGEST = ["refused", "dropped", "rescued", "correction", "bonus", "agreed", "rejected", "unused"];

// Set what became of a unit by the verdicts of all rounds: its status, and whether it would be kept and was not.
function settle(unit, sample, verdicts) {
  const { kept, rest } = verdicts[unit.round];
  const offset = sample.rounds[unit.round].draft_ids.length - rest.length;
  const statuses = unit.parts.map((i) => unit.rest ? rest[i - offset] : kept[i]);
  unit.status = STRONGEST.find((status) => statuses.includes(status));
  unit.gained = unit.rest && !["rejected", "unused"].includes(unit.status);
}

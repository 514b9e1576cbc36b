// Both answers once more, from a common start and at the pace of their decoding: they were decoded one after the other.

const SHORTEST = 5; // seconds that a replay takes at least; below, it is slowed down
let film = null; // the replay that is being shown: its frame and its columns

const canReplay = () => running === null && [columns.target, columns.judge].every(({ heard, sample, name }) => heard.length && (sample || name === "target"));

function replay() {
  if (film) return endReplay();
  if (running !== null) return;
  if (!canReplay()) return hint("A replay needs both answers; ask again with the target alone.");
  close();
  const both = [columns.target, columns.judge];
  const longest = Math.max(...both.map(({ heard }) => heard.at(-1).figures.seconds));
  const slower = Math.max(1, SHORTEST / longest), begin = performance.now();
  film = { frame: 0, both: both.map((column) => ({ column, left: [...column.heard], kept: [...column.list.childNodes], said: column.state.textContent })) };
  const pace = slower > 1 ? `Replay, slowed down by a factor of ${slower.toFixed(1)}.` : "Replay at the original speed.";
  for (const { list, box, state } of both) {
    list.style.minHeight = `${list.offsetHeight}px`; // the page stays where it is
    list.replaceChildren();
    box.classList.add("busy");
    state.textContent = pace;
  }
  say(pace);
  const show = () => {
    const now = (performance.now() - begin) / 1000 / slower;
    for (const { column, left } of film.both) {
      while (left.length && left[0].figures.seconds <= now) hear(column, left.shift());
      column.box.classList.toggle("busy", left.length > 0);
    }
    if (film.both.some(({ left }) => left.length)) film.frame = requestAnimationFrame(show);
    else endReplay();
  };
  film.frame = requestAnimationFrame(show);
  busy();
}

function endReplay() {
  if (!film) return false;
  cancelAnimationFrame(film.frame);
  for (const { column, kept, said } of film.both) {
    column.list.style.minHeight = "";
    column.list.replaceChildren(...kept);
    column.box.classList.remove("busy");
    column.state.textContent = said;
    figures(column, column.heard.at(-1).figures);
  }
  film = null;
  busy();
  return true;
}

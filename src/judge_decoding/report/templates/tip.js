// What is known about a token, beside it: for the pointer, the keyboard and the finger.

let tipOf = null, tipTimer = 0;

function hideTip() {
  clearTimeout(tipTimer);
  by("tip").hidden = true;
  tipOf?.element.removeAttribute("aria-describedby");
  tipOf = null;
}

function showTip(unit) {
  clearTimeout(tipTimer);
  if (tipOf !== unit) hideTip();
  tipOf = unit;
  const tip = by("tip");
  tip.replaceChildren(...unit.parts.flatMap((i) => describe(unit, i)));
  tip.hidden = false;
  unit.element.setAttribute("aria-describedby", "tip");
  tip.style.setProperty("--dock", by("dock").offsetHeight + "px");
  const box = unit.element.lastChild.getClientRects()[0] || unit.element.getBoundingClientRect();
  const below = box.bottom + 8 + tip.offsetHeight < innerHeight - by("dock").offsetHeight;
  const left = Math.max(8, Math.min(box.left, document.documentElement.clientWidth - tip.offsetWidth - 8));
  tip.style.setProperty("--x", left + "px");
  tip.style.setProperty("--y", Math.max(8, below ? box.bottom + 8 : box.top - 8 - tip.offsetHeight) + "px");
}

// After tokens have moved or changed: it follows its token, or goes with it.
function refreshTip() {
  if (tipOf && seen(tipOf)) showTip(tipOf);
  else hideTip();
}

// It stays while the pointer is on it, goes by Escape, and comes with the focus.
function watchTips() {
  const unitOf = (event) => event.target.closest?.(".token")?.unit;
  const later = () => { clearTimeout(tipTimer); tipTimer = setTimeout(hideTip, 200); };
  document.addEventListener("pointerover", (event) => {
    const unit = unitOf(event);
    if (unit) showTip(unit);
    else if (by("tip").contains(event.target)) clearTimeout(tipTimer);
    else if (tipOf && document.activeElement !== tipOf.element) later();
  });
  document.addEventListener("focusin", (event) => {
    const unit = unitOf(event);
    if (!unit) return hideTip();
    current = unit;
    showTip(unit);
  });
  document.addEventListener("focusout", later);
  addEventListener("scroll", () => tipOf && (document.activeElement === tipOf.element ? showTip(tipOf) : hideTip()), { passive: true });
}

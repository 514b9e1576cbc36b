document.getElementById("which").addEventListener("change", (event) => {
  for (const part of document.querySelectorAll("[data-rule]"))
    part.hidden = part.dataset.rule !== event.target.value;
});

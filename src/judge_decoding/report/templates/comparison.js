document.getElementById("toggle").addEventListener("click", (event) => {
  const on = document.body.classList.toggle("show-rejected");
  event.target.setAttribute("aria-pressed", on);
  event.target.textContent = (on ? "Hide" : "Show") + " rejected draft tokens";
});

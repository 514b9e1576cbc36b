document.getElementById("show").addEventListener("change", (event) => {
  for (const article of document.querySelectorAll("article"))
    article.hidden = event.target.value !== "" && article.dataset.kind !== event.target.value;
});

// Asks the question that fits the chosen score. The page works without it; nothing is ever sent by itself.
const form = document.getElementById("answer");
const question = document.getElementById("question");
const step = document.getElementById("step");

function band(score) {
  return score >= 9 ? "promoter" : score >= 7 ? "passive" : "detractor";
}

form.addEventListener("change", (event) => {
  if (event.target.name !== "score") return;
  question.textContent = form.dataset[band(Number(event.target.value))];
  if (step) {
    step.textContent = form.dataset.stepComment;
    form.querySelector("progress").value = 2;
  }
});

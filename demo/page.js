// Small helps that Gradio has no component for: a cited fact opens where it stands, the evidence layer's opacity.
(() => {
  document.addEventListener("click", (event) => {
    const link = event.target.closest && event.target.closest("a.sg-cite");
    if (!link) return;
    const fact = document.getElementById(link.getAttribute("href").slice(1));
    if (!fact) return;
    event.preventDefault();
    fact.open = true;
    fact.scrollIntoView({ block: "center", behavior: "smooth" });
    fact.querySelector("summary").focus({ preventScroll: true });
  });
})();

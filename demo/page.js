// Small helps that Gradio has no component for: a cited fact opens where it stands; results come into view.
(() => {
  document.addEventListener("click", (event) => {
    const link = event.target.closest && event.target.closest("a.sg-cite");
    if (!link) return;
    const fact = document.getElementById(link.getAttribute("href").slice(1));
    if (!fact) return;
    event.preventDefault();
    for (let folded = fact; folded; folded = folded.parentElement.closest("details")) folded.open = true;
    fact.scrollIntoView({ block: "center", behavior: "smooth" });
    fact.querySelector("summary").focus({ preventScroll: true });
  });
  // A picture fills the window and goes back, by click or key.
  const zoom = (event) => event.target.closest?.(".sg-frame")?.classList.toggle("sg-zoomed");
  document.addEventListener("click", zoom);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter") zoom(event);
    if (event.key === "Escape") document.querySelectorAll(".sg-zoomed").forEach((frame) => frame.classList.remove("sg-zoomed"));
  });
  // On a narrow screen the results stand below the fields: go there when the work begins.
  document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest("#inspect, #compare, #folder");
    if (!button || window.innerWidth > 760) return;
    const results = { inspect: "#status, #message", compare: "#cmp-left, #cmp-message", folder: "#fld-message" }[button.id];
    setTimeout(() => document.querySelector(results)?.scrollIntoView({ block: "start", behavior: "smooth" }), 700);
  });
})();

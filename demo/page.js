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
  // A picture fills the window, then comes closer at the point that was clicked, then goes back; by click or key.
  const zoom = (event) => {
    const frame = event.target.closest?.(".sg-frame");
    if (!frame) return;
    if (frame.classList.contains("sg-closer")) return frame.classList.remove("sg-zoomed", "sg-closer");
    if (!frame.classList.contains("sg-zoomed")) return frame.classList.add("sg-zoomed");
    const inside = frame.firstElementChild.getBoundingClientRect();
    const [x, y] = event.clientX ? [event.clientX, event.clientY] : [inside.left + inside.width / 2, inside.top + inside.height / 2];
    const share = [(x - inside.left) / inside.width, (y - inside.top) / inside.height];
    frame.classList.add("sg-closer");
    frame.scrollTo(share[0] * frame.scrollWidth - innerWidth / 2, share[1] * frame.scrollHeight - innerHeight / 2);
  };
  // A region is marked in the list and on the picture at once: under the mouse, with the keyboard's focus, by a tap.
  const mark = (event) => {
    const name = event.target.closest?.("[data-region]")?.dataset.region;
    document.querySelectorAll(".sg-on").forEach((one) => one.classList.remove("sg-on"));
    if (name) document.querySelectorAll(`[data-region="${name}"]`).forEach((one) => one.classList.add("sg-on"));
  };
  for (const kind of ["mouseover", "focusin", "click"]) document.addEventListener(kind, mark);
  document.addEventListener("click", (event) => {
    if (event.pointerType !== "touch" || !event.target.closest?.(".sg-box")) zoom(event);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter") zoom(event);
    if (event.key === "Escape") {
      document.querySelectorAll(".sg-zoomed").forEach((frame) => frame.classList.remove("sg-zoomed", "sg-closer"));
    }
  });
  // The slider below a part wipes its marks off, from the left.
  document.addEventListener("input", (event) => {
    const figure = event.target.closest?.(".sg-wipe")?.closest("figure");
    if (figure) figure.style.setProperty("--sg-cut", event.target.value);
  });
  // On a narrow screen the results stand below the fields: go there when the work begins, or was stopped.
  document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest("#inspect, #stop, #compare, #folder");
    if (!button || window.innerWidth > 760) return;
    const results = { inspect: "#status, #message", stop: "#message", compare: "#cmp-left, #cmp-message", folder: "#fld-message" }[button.id];
    setTimeout(() => document.querySelector(results)?.scrollIntoView({ block: "start", behavior: "smooth" }), 700);
  });
})();

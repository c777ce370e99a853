// A region marked on a picture: drag across it, or click (or tap) two opposite corners, or type its edges. Once per component.
let corner = null, from = null;
const stack = () => element.querySelector(".sg-stack");
const at = (event) => {
  const frame = stack().getBoundingClientRect();
  const share = (here, start, size) => Math.min(1, Math.max(0, (here - start) / size));
  return [share(event.clientX, frame.left, frame.width) * props.width, share(event.clientY, frame.top, frame.height) * props.height];
};
const around = (one, other) => [0, 1, 2, 3].map((edge) => {
  const [low, high] = [one[edge % 2], other[edge % 2]].sort((a, b) => a - b);
  return edge < 2 ? Math.floor(low) : Math.ceil(high);
});
const draw = (box) => {
  const mark = element.querySelector(".sg-picked"), percent = (part, whole) => `${(100 * part) / whole}%`;
  mark.hidden = false;
  mark.style.cssText = `left: ${percent(box[0], props.width)}; top: ${percent(box[1], props.height)};
    width: ${percent(box[2] - box[0], props.width)}; height: ${percent(box[3] - box[1], props.height)}`;
};
const take = (box) => {
  corner = from = null;
  props.value = box;
  trigger("input");
};
// What counts as a click, in pixels of the screen: a hand is never quite still.
const still = (event) => Math.hypot(event.clientX - from.x, event.clientY - from.y) < 6;
element.addEventListener("pointerdown", (event) => {
  if (!event.target.closest(".sg-stack") || event.button !== 0) return;
  from = { x: event.clientX, y: event.clientY, at: at(event), drags: event.pointerType !== "touch" };
  if (from.drags) stack().setPointerCapture(event.pointerId);
});
element.addEventListener("pointermove", (event) => {
  if (from?.drags && !still(event)) draw(around(from.at, at(event)));
  else if (corner && !from && event.target.closest(".sg-stack")) draw(around(corner, at(event)));
});
element.addEventListener("pointercancel", () => { from = null; }); // a finger that scrolls the page
element.addEventListener("pointerup", (event) => {
  if (!from) return;
  if (!still(event)) return from.drags ? take(around(from.at, at(event))) : (from = null);
  const first = corner;
  if (first) return take(around(first, at(event)));
  corner = from.at;
  from = null;
  draw([...corner, ...corner]);
});
element.addEventListener("change", (event) => {
  if (!event.target.matches("input")) return;
  event.stopPropagation();
  const typed = [...element.querySelectorAll("input")].map((field) => field.value);
  const whole = [0, 0, props.width, props.height];
  const edges = typed.map((value, edge) => (value === "" ? whole[edge] : Math.min(Math.max(0, Math.round(value)), whole[edge % 2 + 2])));
  take(around(edges.slice(0, 2), edges.slice(2)));
});
element.addEventListener("click", (event) => { if (event.target.closest("button")) take(null); });

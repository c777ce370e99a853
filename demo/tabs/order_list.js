// A list that is put in order: by dragging, with the arrow buttons, or by typing a place. Runs once per component.
const count = () => (props.value || []).length;
const move = (from, to) => {
  to = Math.max(0, Math.min(count() - 1, to));
  if (from === to || Number.isNaN(to)) return;
  const items = [...props.value];
  items.splice(to, 0, items.splice(from, 1)[0]);
  props.value = items;
  trigger("change");
  // Once the list is drawn anew: fields show their new places (a typed number would stay), the moved row keeps the focus,
  // unless the user has gone on to another field in the meantime: what is typed there would be lost.
  setTimeout(() => {
    const fields = [...element.querySelectorAll("li input")];
    fields.forEach((field, index) => { field.value = index + 1; });
    const now = document.activeElement;
    if (fields[to] && (!now || now === document.body || element.contains(now))) fields[to].focus();
  }, 60);
};
const place = (node) => [...element.querySelectorAll("li")].indexOf(node.closest("li"));
let dragged = -1;
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-by]");
  if (button) move(place(button), place(button) + Number(button.dataset.by));
});
element.addEventListener("change", (event) => {
  if (event.target.matches("input")) {
    event.stopPropagation();
    move(place(event.target), Number(event.target.value) - 1);
  }
});
element.addEventListener("dragstart", (event) => {
  dragged = place(event.target);
  event.dataTransfer.effectAllowed = "move";
  event.dataTransfer.setData("text/plain", String(dragged));
});
element.addEventListener("dragover", (event) => { if (dragged >= 0) event.preventDefault(); });
element.addEventListener("drop", (event) => {
  const row = event.target.closest("li");
  if (dragged < 0 || !row) return;
  event.preventDefault();
  move(dragged, place(row));
  dragged = -1;
});
element.addEventListener("dragend", () => { dragged = -1; });

// The page of `pipeline serve`: photos that are chosen, taken or dropped are sent at once.
"use strict";

const form = document.getElementById("form"), drop = document.getElementById("drop"), note = document.getElementById("note");
const inputs = ["files", "camera"].map((id) => document.getElementById(id));
const hint = note.textContent, most = Number(note.dataset.most);

function say(text, error) {
  note.textContent = text;
  note.classList.toggle("error", Boolean(error));
}

function reset() {
  form.classList.remove("busy");
  for (const input of inputs) { input.value = ""; input.disabled = false; }
  say(hint);
}

function send(chosen) {
  const count = chosen.files.length;
  if (!count) return;
  if (count > most) { reset(); say(`${count} photos are too many: choose up to ${most}.`, true); return; }
  for (const input of inputs) input.disabled = input !== chosen; // an empty input would be sent as a photo
  say(count === 1 ? "Locating the photo \u2026" : `Locating ${count} photos \u2026`);
  form.classList.add("busy");
  form.submit();
}

for (const input of inputs) input.addEventListener("change", () => send(input));
for (const kind of ["dragenter", "dragover"])
  document.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  inputs[0].files = event.dataTransfer.files;
  send(inputs[0]);
});
window.addEventListener("pageshow", reset); // also after the browser's way back

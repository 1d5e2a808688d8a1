"use strict";
// Voxels and programs lie in the page as base64 of gzip; each is unpacked once.
const unpacked = new Map();

function packedBytes(id) {
  const text = atob(document.getElementById(id).textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

function unpack(id) {
  if (!unpacked.has(id)) {
    const stream = new Blob([packedBytes(id)]).stream().pipeThrough(new DecompressionStream("gzip"));
    unpacked.set(id, new Response(stream).arrayBuffer());
  }
  return unpacked.get(id);
}

// Voxels behind the 352 bytes of a NIfTI header: x runs fastest, then y, then z.
async function voxelsOf(id) {
  return new Uint8Array(await unpack(id), 352);
}

function offer(button, action) {
  button.hidden = false;
  button.addEventListener("click", action);
}

function say(button, text) {
  const before = button.dataset.text ??= button.textContent;
  button.textContent = text;
  setTimeout(() => { button.textContent = before; }, 1500);
}

// A file opened from a disk may have no clipboard; then the text is selected, ready to be copied by hand.
async function copy(button, source) {
  try {
    await navigator.clipboard.writeText(source.textContent);
    say(button, "Copied");
  } catch {
    getSelection().selectAllChildren(source);
    say(button, document.execCommand("copy") ? "Copied" : "Selected");
  }
}

for (const button of document.querySelectorAll("button.copy")) {
  offer(button, () => copy(button, button.parentElement.querySelector("code")));
}
for (const button of document.querySelectorAll("button.save")) {
  offer(button, () => {
    const record = button.closest("article").querySelector(".record code").textContent;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([record], { type: "application/json" }));
    link.download = button.dataset.file;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}

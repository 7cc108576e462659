"use strict";
for (const wipe of document.querySelectorAll(".wipe")) {
  const source = document.getElementById(wipe.dataset.of);
  const grids = [...source.querySelectorAll(".grids img")];
  if (grids.length < 2) continue;
  const [under, over] = wipe.querySelectorAll(".stage img");
  const [left, right] = wipe.querySelectorAll("select");
  const range = wipe.querySelector("input");
  const stage = wipe.querySelector(".stage");
  for (const select of [left, right]) {
    grids.forEach((grid, i) => select.add(new Option(grid.alt, i)));
  }
  const show = () => {
    for (const [image, select] of [[over, left], [under, right]]) {
      const grid = grids[select.value];
      image.src = grid.src;
      image.alt = grid.alt;
      image.width = grid.width;
      image.height = grid.height;
      image.className = grid.className;
    }
    stage.style.setProperty("--cut", range.value + "%");
  };
  left.value = wipe.dataset.of === "sides" ? 0 : grids.length - 2;
  right.value = Number(left.value) + 1;
  for (const input of [left, right, range]) input.addEventListener("input", show);
  wipe.hidden = false;
  show();
}
const say = () => {
  for (const box of document.querySelectorAll(".wide, pre")) {
    box.classList.toggle("scrolls", box.scrollWidth > box.clientWidth + 1);
  }
};
addEventListener("resize", say);
document.addEventListener("exchanged", say);
document.addEventListener("toggle", say, true);
say();
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => (each.open = true)));

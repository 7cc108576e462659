"use strict";
for (const wipe of document.querySelectorAll(".wipe")) {
  const sheets = [...wipe.parentElement.querySelectorAll(".sheets img")];
  if (sheets.length < 2) continue;
  const [under, over] = wipe.querySelectorAll(".stage img");
  const [left, right] = wipe.querySelectorAll("select");
  const range = wipe.querySelector("input");
  const stage = wipe.querySelector(".stage");
  for (const select of [left, right]) {
    sheets.forEach((sheet, i) => select.add(new Option(sheet.alt, i)));
  }
  const show = () => {
    for (const [image, select] of [[over, left], [under, right]]) {
      const sheet = sheets[select.value];
      image.src = sheet.src;
      image.alt = sheet.alt;
      image.width = sheet.width;
      image.height = sheet.height;
      image.className = sheet.className;
    }
    stage.style.setProperty("--cut", range.value + "%");
  };
  left.value = sheets.length > 2 ? 1 : 0;
  right.value = sheets.length - 1;
  for (const input of [left, right, range]) input.addEventListener("input", show);
  wipe.hidden = false;
  show();
}

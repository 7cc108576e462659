"use strict";
{
  const said = document.getElementById("said");
  const { address } = document.getElementById("live").dataset;
  const exchange = (name, part) => {
    const place = document.getElementById(name);
    const ticked = new Set([...place.querySelectorAll("input:checked")].map((input) => input.value));
    const focused = place.contains(document.activeElement) ? document.activeElement.id : "";
    place.innerHTML = part.html;
    place.dataset.digest = part.digest;
    for (const input of place.querySelectorAll("input")) input.checked = ticked.has(input.value);
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  };
  const ask = async () => {
    let isOver = false;
    try {
      const known = [...document.querySelectorAll("[data-digest]")].map((part) => part.dataset.digest);
      const reply = await fetch(`${address}?known=${known}`);
      const now = await reply.json();
      for (const [name, part] of Object.entries(now.parts)) exchange(name, part);
      isOver = now.is_over;
      said.textContent = "";
      document.dispatchEvent(new Event("exchanged"));
    } catch {
      said.textContent = "The dashboard does not answer; this page goes on asking.";
    }
    if (!isOver) setTimeout(ask, 2000);
  };
  setTimeout(ask, 2000);
}

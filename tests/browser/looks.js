// What a reader sees: measured on the page itself.
(() => {
  const channels = (text) => {
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 1;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = text;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a)];
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (a, b) => {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const fillOf = (element) => {
    const style = getComputedStyle(element);
    if (element instanceof SVGGeometryElement && style.fill !== "none") {
      const [r, g, b, a] = channels(style.fill);
      return [r, g, b, a * style.fillOpacity * style.opacity];
    }
    return channels(style.backgroundColor);
  };
  // The colour under a point: everything painted there below `text`, from the page upwards.
  const under = (text, x, y) => {
    const stack = document.elementsFromPoint(x, y);
    const place = stack.indexOf(text);
    if (place < 0) return null;
    return stack.slice(place + (text instanceof SVGElement ? 1 : 0)).reverse()
      .reduce((colour, element) => over(fillOf(element), colour), [255, 255, 255]);
  };
  window.looks = {
    // [ratio, words] of every piece of text, the poorest first.
    contrasts() {
      document.querySelectorAll("svg *").forEach((e) => (e.style.pointerEvents = "all"));
      document.querySelectorAll("details").forEach((e) => (e.open = true));
      const found = [];
      const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
      while (walker.nextNode()) {
        const words = walker.currentNode.data.trim(), element = walker.currentNode.parentElement;
        if (!words || element.closest("script, style, [hidden], option, .skip")) continue;
        element.scrollIntoView({ block: "center", inline: "center", behavior: "instant" });
        const range = document.createRange();
        range.selectNodeContents(walker.currentNode);
        const [box] = range.getClientRects();
        if (!box || !box.width) continue;
        const below = under(element, box.x + box.width / 2, box.y + box.height / 2);
        if (!below) continue;
        const style = getComputedStyle(element);
        const ink = channels(element instanceof SVGElement ? style.fill : style.color);
        found.push([contrast(over(ink, below), below), words.slice(0, 60)]);
      }
      return found.sort((a, b) => a[0] - b[0]);
    },
    // What a keyboard cannot reach, or what does not show that it was reached.
    unreached: () => [...document.querySelectorAll("a[href], button, input:not([type=hidden]), select, summary, [tabindex]")]
      .filter((e) => e.checkVisibility())
      .filter((e) => { e.focus(); return document.activeElement !== e || getComputedStyle(e).outlineStyle === "none"; })
      .map((e) => e.outerHTML.slice(0, 90)),
    // How far the page is wider than the window, in pixels.
    overhang: () => document.documentElement.scrollWidth - window.innerWidth,
    // Captions of which a part can only be read after scrolling sideways.
    clipped: () => [...document.querySelectorAll("caption, figcaption")].filter((e) => e.checkVisibility())
      .filter((e) => { const box = e.getBoundingClientRect(); return box.left < 0 || box.right > window.innerWidth; })
      .map((e) => e.textContent.trim().slice(0, 60)),
    // Of every image that is shown: its width in pixels, 0 if it did not load, and its alt text.
    images: () => [...document.images].filter((e) => e.checkVisibility())
      .map((e) => [e.complete ? e.naturalWidth : 0, e.alt]),
    // Drawings in the page, which are read aloud by their label.
    drawings: () => [...document.querySelectorAll("svg")].filter((e) => e.checkVisibility())
      .map((e) => [e.getBoundingClientRect().width, e.getAttribute("aria-label")]),
  };
})();

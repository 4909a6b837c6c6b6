// The interactive map: cells, photos, answers and the lines between them, in metres.
"use strict";

function placecacheMap(root, data) {
  const canvas = root.querySelector("canvas");
  const note = root.querySelector(".map-note");
  const tip = root.querySelector(".map-tip");
  const pen = canvas.getContext("2d");
  const items = data.items;
  const cells = unpackCells(data.cells);
  const show = { cells: true, lines: true, right: true, wrong: true, unknown: true, streets: true, dots: false };
  // Centre in metres, pixels per metre; a turned map has north at the right, so that a long city uses the width.
  const view = { east: 0, north: 0, scale: 1, width: 0, height: 0, turned: false };
  const listeners = { hover: () => {}, choose: () => {}, show: () => {} };
  let passes = () => true; // the filters of the list
  let hovered = -1;
  let chosen = -1;
  let touched = false; // until then the map fits whatever size it gets
  let colours = {};
  let frame = 0;
  let picture; // of all cells; undefined before its first use, null if the cells are too far apart
  const crowd = itemsPerArea();

  // ---- data ----------------------------------------------------------------------------------
  function unpackCells(packed) {
    const [p, q, span, images] = [packed.p, packed.q, packed.span, packed.images].map(placecacheNumbers);
    let most = 1;
    for (const count of images) most = Math.max(most, count);
    const shade = Uint8Array.from(images, (count) => Math.min(3, Math.floor((4 * Math.log1p(count)) / Math.log1p(most))));
    return { p, q, span, images, shade, side: packed.cell_m };
  }

  const kind = (item) => (item.right === null ? "unknown" : item.right ? "right" : "wrong");
  const visible = (item) => show[kind(item)] && passes(item);

  function itemsPerArea() {
    const box = bounds(true);
    return items.length / Math.max(1, (box.east - box.west) * (box.north - box.south));
  }

  function bounds(itemsOnly) {
    let west = Infinity, east = -Infinity, south = Infinity, north = -Infinity;
    const add = (e, n) => {
      west = Math.min(west, e); east = Math.max(east, e); south = Math.min(south, n); north = Math.max(north, n);
    };
    for (let i = 0; i < cells.p.length && !itemsOnly; i++) {
      add(cells.p[i] * cells.side, cells.q[i] * cells.side);
      add((cells.p[i] + cells.span[i]) * cells.side, (cells.q[i] + cells.span[i]) * cells.side);
    }
    for (const item of items) for (const place of [item.truth, item.answer]) if (place) add(place[0], place[1]);
    return west <= east ? { west, east, south, north } : { west: 0, east: 100, south: 0, north: 100 };
  }

  // ---- view ----------------------------------------------------------------------------------
  const pixel = ([east, north]) => [
    view.width / 2 + (view.turned ? north - view.north : east - view.east) * view.scale,
    view.height / 2 + (view.turned ? east - view.east : view.north - north) * view.scale,
  ];
  const ground = (px, py) => {
    const right = (px - view.width / 2) / view.scale, down = (py - view.height / 2) / view.scale;
    return view.turned ? [view.east + down, view.north + right] : [view.east + right, view.north - down];
  };

  const base = placecacheBaseMap(pen, data, view, pixel, ground, redraw);

  function fit(box, most, keepTurn) {
    const margin = Math.min(36, view.width / 10);
    const wide = Math.max(box.east - box.west, 20), tall = Math.max(box.north - box.south, 20);
    const right = Math.max(view.width - 2 * margin, 1), down = Math.max(view.height - 2 * margin, 1);
    const upright = Math.min(right / wide, down / tall), turned = Math.min(right / tall, down / wide);
    if (!keepTurn) view.turned = turned > 1.5 * upright;
    view.east = (box.west + box.east) / 2;
    view.north = (box.south + box.north) / 2;
    view.scale = Math.min(view.turned ? turned : upright, most || 40);
    redraw();
  }

  function zoom(factor, px, py) {
    touched = true;
    const atX = px === undefined ? view.width / 2 : px, atY = py === undefined ? view.height / 2 : py;
    const scale = Math.min(200, Math.max(0.0005, view.scale * factor));
    const before = ground(atX, atY);
    view.scale = scale;
    const after = ground(atX, atY);
    view.east += before[0] - after[0];
    view.north += before[1] - after[1];
    redraw();
  }

  function pan(dx, dy) {
    touched = true;
    [view.east, view.north] = ground(view.width / 2 - dx, view.height / 2 - dy);
    redraw();
  }

  function resize() {
    const box = canvas.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
    if (box.width === view.width && box.height === view.height) return;
    view.width = box.width;
    view.height = box.height;
    canvas.width = Math.round(box.width * ratio);
    canvas.height = Math.round(box.height * ratio);
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (!touched) fit(bounds(data.focus === "items"), data.focus === "items" ? 8 : 40);
    draw(); // at once: setting the size has emptied the canvas
  }

  // ---- drawing -------------------------------------------------------------------------------
  function readColours() {
    const style = getComputedStyle(root);
    for (const name of ["ink", "muted", "line", "panel", "right", "wrong", "unknown", "street", "dot", "cell-0", "cell-1", "cell-2", "cell-3"])
      colours[name] = style.getPropertyValue("--" + name).trim();
    const ends = ["--unsure", "--sure"].map((name) => style.getPropertyValue(name).trim().match(/[0-9a-f]{2}/gi).map((hex) => parseInt(hex, 16)));
    colours.trust = Array.from({ length: 21 }, (_, step) =>
      `rgb(${ends[0].map((from, part) => Math.round(from + ((ends[1][part] - from) * step) / 20)).join(" ")})`);
  }

  // Where the truth is unknown, colour and size tell the confidence.
  function colourOf(item) {
    if (item.right !== null || item.confidence === null) return colours[kind(item)];
    return colours.trust[Math.round(20 * Math.min(1, Math.max(0, item.confidence)))];
  }

  function redraw() {
    if (!frame) frame = requestAnimationFrame(() => { frame = 0; draw(); });
  }

  function draw() {
    pen.clearRect(0, 0, view.width, view.height);
    base.drawTiles();
    if (show.cells) drawCells();
    if (show.streets) base.drawStreets(colours.street);
    if (show.dots) base.drawDots(colours.dot);
    drawPaths();
    if (show.lines) drawLines();
    for (const item of items) if (visible(item)) drawItem(item, false);
    for (const number of [hovered, chosen]) if (number >= 0 && visible(items[number])) drawChosen(items[number]);
    drawScale();
    root.dataset.drawn = String(items.filter(visible).length);
    root.dataset.turned = String(view.turned);
    root.dataset.cells = show.cells ? String(cells.p.length) : "0";
  }

  // Zoomed out, all cells are one picture with a pixel per cell, so that panning 300,000 cells stays fast.
  function cellPicture() {
    let west = Infinity, east = -Infinity, south = Infinity, north = -Infinity;
    for (let i = 0; i < cells.p.length; i++) {
      west = Math.min(west, cells.p[i]); east = Math.max(east, cells.p[i] + cells.span[i] - 1);
      south = Math.min(south, cells.q[i]); north = Math.max(north, cells.q[i] + cells.span[i] - 1);
    }
    const wide = east - west + 1, tall = north - south + 1;
    if (!(wide > 0 && wide <= 4096 && tall <= 4096)) return null;
    const canvas = document.createElement("canvas");
    canvas.width = wide;
    canvas.height = tall;
    const brush = canvas.getContext("2d");
    for (let shade = 0; shade < 4; shade++) {
      brush.fillStyle = colours["cell-" + shade];
      for (let i = 0; i < cells.p.length; i++)
        if (cells.shade[i] === shade) brush.fillRect(cells.p[i] - west, north - cells.q[i] - cells.span[i] + 1, cells.span[i], cells.span[i]);
    }
    return { canvas, west, north, wide, tall };
  }

  function drawCells() {
    const side = cells.side * view.scale, gap = side > 6 ? 1 : 0;
    if (!gap && picture === undefined) picture = cellPicture();
    if (!gap && picture) {
      pen.imageSmoothingEnabled = side < 1;
      pen.save();
      pen.globalAlpha = data.tiles ? 0.4 : 1;
      pen.translate(...pixel([picture.west * cells.side, (picture.north + 1) * cells.side]));
      if (view.turned) pen.rotate(Math.PI / 2);
      pen.drawImage(picture.canvas, 0, 0, picture.wide * side, picture.tall * side);
      pen.restore();
      return;
    }
    pen.globalAlpha = data.tiles ? 0.4 : 1;
    for (let shade = 0; shade < 4; shade++) {
      pen.fillStyle = colours["cell-" + shade];
      for (let i = 0; i < cells.p.length; i++) {
        if (cells.shade[i] !== shade) continue;
        const size = Math.max(cells.span[i] * side - gap, 1.5), up = view.turned ? 0 : cells.span[i];
        const [left, top] = pixel([cells.p[i] * cells.side, (cells.q[i] + up) * cells.side]);
        if (left < view.width && top < view.height && left + size > 0 && top + size > 0) pen.fillRect(left, top, size, size);
      }
    }
    pen.globalAlpha = 1;
  }

  // The answers along each walk, in order of time.
  function drawPaths() {
    pen.lineWidth = 2;
    pen.lineJoin = "round";
    pen.strokeStyle = colours.ink;
    pen.globalAlpha = 0.45;
    for (const path of data.paths) {
      pen.beginPath();
      for (const place of path) pen.lineTo(...pixel(place));
      pen.stroke();
    }
    pen.globalAlpha = 1;
    root.dataset.paths = String(data.paths.length);
  }

  function drawLines() {
    pen.lineWidth = 1.25;
    pen.globalAlpha = items.length > 400 ? 0.35 : 0.65;
    for (const which of ["right", "unknown", "wrong"]) {
      pen.strokeStyle = colours[which];
      pen.beginPath();
      for (const item of items) {
        if (kind(item) !== which || !visible(item) || !item.truth || !item.answer) continue;
        pen.moveTo(...pixel(item.truth));
        pen.lineTo(...pixel(item.answer));
      }
      pen.stroke();
    }
    pen.globalAlpha = 1;
  }

  function diamond(px, py, size) {
    pen.beginPath();
    pen.moveTo(px, py - size); pen.lineTo(px + size, py); pen.lineTo(px, py + size); pen.lineTo(px - size, py);
    pen.closePath();
  }

  function drawItem(item, large) {
    // Markers shrink with the distance between them in pixels, so that they do not hide each other.
    const apart = view.scale / Math.sqrt(crowd || 1), least = items.length <= 400 ? 0.85 : 0.45;
    const sure = item.right === null && item.confidence !== null ? 0.8 + 0.5 * item.confidence : 1;
    const grow = (large ? 1.8 : Math.min(1.3, Math.max(least, apart / 30))) * sure;
    pen.lineWidth = 1.5 * Math.min(1, grow);
    if (item.answer) {
      diamond(...pixel(item.answer), 4.5 * grow);
      pen.fillStyle = item.abstained ? colours.panel : colourOf(item);
      pen.fill();
      pen.strokeStyle = item.abstained ? colourOf(item) : colours.panel;
      if (large || item.abstained || items.length <= 2000) pen.stroke(); // outlines of thousands take most of the time
    }
    if (item.truth) {
      pen.beginPath();
      pen.arc(...pixel(item.truth), 4 * grow, 0, 2 * Math.PI);
      pen.fillStyle = colours.panel;
      pen.fill();
      pen.lineWidth = 2 * Math.min(1, grow);
      pen.strokeStyle = colours[kind(item)];
      pen.stroke();
    }
  }

  function drawRadius(centre) {
    pen.beginPath();
    pen.arc(...pixel(centre), data.radius_m * view.scale, 0, 2 * Math.PI);
    pen.setLineDash([4, 4]);
    pen.lineWidth = 1.5;
    pen.strokeStyle = colours.muted;
    pen.stroke();
    pen.setLineDash([]);
  }

  function joinTo(from, to, colour, dash) {
    pen.globalAlpha = 0.75;
    pen.lineWidth = 1;
    pen.strokeStyle = colour;
    pen.setLineDash(dash);
    pen.beginPath(); pen.moveTo(...pixel(from)); pen.lineTo(...pixel(to)); pen.stroke();
    pen.setLineDash([]);
    pen.globalAlpha = 1;
  }

  // Where the photos were taken that look most like this one.
  function drawAlike(item) {
    for (const place of item.details ? item.details.places : [])
      for (const photo of place.alike) {
        if (!photo.at) continue;
        joinTo(place.at, photo.at, colours.ink, [1, 3]);
        const [px, py] = pixel(photo.at);
        pen.fillStyle = colours.dot;
        pen.strokeStyle = colours.panel;
        pen.lineWidth = 1.5;
        pen.beginPath(); pen.rect(px - 3.5, py - 3.5, 7, 7); pen.fill(); pen.stroke();
      }
  }

  function drawChosen(item) {
    const centre = item.right === null ? item.answer : item.truth;
    if (centre && data.radius_m) drawRadius(centre);
    const from = item.right === null ? item.answer : item.truth || item.answer;
    drawAlike(item);
    item.others.forEach((place, rank) => {
      if (from) joinTo(from, place, colours.muted, [2, 3]);
      const [px, py] = pixel(place);
      pen.fillStyle = colours.panel;
      pen.strokeStyle = colours.ink;
      pen.lineWidth = 1;
      pen.beginPath(); pen.arc(px, py, 8, 0, 2 * Math.PI); pen.fill(); pen.stroke();
      pen.fillStyle = colours.ink;
      pen.font = "600 10px system-ui, sans-serif";
      pen.textAlign = "center"; pen.textBaseline = "middle";
      pen.fillText(String(rank + 2), px, py + 0.5);
    });
    if (item.truth && item.answer) {
      pen.lineWidth = 2.5;
      pen.strokeStyle = colourOf(item);
      pen.beginPath(); pen.moveTo(...pixel(item.truth)); pen.lineTo(...pixel(item.answer)); pen.stroke();
    }
    drawItem(item, true);
  }


  function drawScale() {
    const longest = Math.min(140, view.width / 3) / view.scale, power = 10 ** Math.floor(Math.log10(longest));
    const length = [5, 2, 1].map((step) => step * power).find((value) => value <= longest);
    const px = length * view.scale, left = 16, bottom = view.height - 16, compass = view.turned ? "N \u2192" : "N \u2191";
    pen.font = "600 12px system-ui, sans-serif";
    pen.textAlign = "left"; pen.textBaseline = "alphabetic";
    for (const [colour, width] of [[colours.panel, 5], [colours.ink, 1.5]]) {
      pen.strokeStyle = colour;
      pen.lineWidth = width;
      pen.lineJoin = "round";
      pen.beginPath();
      pen.moveTo(left, bottom - 6); pen.lineTo(left, bottom); pen.lineTo(left + px, bottom); pen.lineTo(left + px, bottom - 6);
      pen.stroke();
      if (width > 2) { pen.strokeText(placecacheMetres(length), left + 6, bottom - 6); pen.strokeText(compass, view.width - 38, bottom); }
    }
    pen.fillStyle = colours.ink;
    pen.fillText(placecacheMetres(length), left + 6, bottom - 6);
    pen.fillText(compass, view.width - 38, bottom);
    root.dataset.scaleM = String(length);
  }

  // ---- under the pointer -----------------------------------------------------------------
  function nearest(px, py) {
    let best = -1, least = 16 * 16;
    items.forEach((item, number) => {
      if (!visible(item)) return;
      for (const place of [item.truth, item.answer]) {
        if (!place) continue;
        const at = pixel(place), away = (at[0] - px) ** 2 + (at[1] - py) ** 2;
        if (away < least) { least = away; best = number; }
      }
    });
    return best;
  }

  function showTip(px, py) {
    if (hovered < 0) { tip.hidden = true; return; }
    const item = items[hovered], source = placecachePicture(item, data);
    tip.replaceChildren();
    if (source) {
      const picture = document.createElement("img");
      picture.src = source;
      picture.alt = "";
      tip.append(picture);
    }
    for (const [tag, text] of [["strong", placecacheDescribe(item)], ["span", item.label]]) {
      const line = document.createElement(tag);
      line.textContent = text;
      tip.append(line);
    }
    tip.hidden = false;
    const right = px + 16 + tip.offsetWidth > view.width, low = py + 16 + tip.offsetHeight > view.height;
    tip.style.left = Math.max(4, right ? px - tip.offsetWidth - 12 : px + 16) + "px";
    tip.style.top = Math.max(4, low ? py - tip.offsetHeight - 12 : py + 16) + "px";
  }

  function hover(number, px, py) {
    if (number !== hovered) { hovered = number; redraw(); listeners.hover(number); }
    canvas.style.cursor = number >= 0 ? "pointer" : "";
    showTip(px, py);
  }

  function choose(number, centre) {
    chosen = number;
    note.replaceChildren();
    if (number < 0) note.textContent = note.dataset.hint;
    else {
      note.append(...placecacheDetails(items[number], number, items.length, data));
      note.scrollTop = 0;
      touched = true;
      resize(); // the note may have grown
      if (centre) {
        const box = { west: Infinity, east: -Infinity, south: Infinity, north: -Infinity };
        for (const place of [items[number].truth, items[number].answer, ...items[number].others]) {
          if (!place) continue;
          box.west = Math.min(box.west, place[0]); box.east = Math.max(box.east, place[0]);
          box.south = Math.min(box.south, place[1]); box.north = Math.max(box.north, place[1]);
        }
        if (box.west <= box.east) fit(box, 4, true);
      }
    }
    listeners.choose(number);
    redraw();
  }

  function step(by) {
    const order = listeners.order ? listeners.order() : items.map((_, number) => number).filter((number) => visible(items[number]));
    if (!order.length) return;
    const at = order.indexOf(chosen);
    choose(order[at < 0 ? 0 : (at + by + order.length) % order.length], true);
  }

  // ---- pointer, wheel, keys ------------------------------------------------------------------------
  const fingers = new Map();
  let moved = 0;
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, place(event));
    canvas.setPointerCapture(event.pointerId);
    moved = 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const [px, py] = place(event), before = fingers.get(event.pointerId);
    if (!before) { hover(nearest(px, py), px, py); return; }
    const dx = px - before[0], dy = py - before[1];
    moved += Math.abs(dx) + Math.abs(dy);
    if (fingers.size === 2) {
      const other = [...fingers].find(([id]) => id !== event.pointerId)[1];
      const apart = (a) => Math.hypot(a[0] - other[0], a[1] - other[1]) || 1;
      pan(dx / 2, dy / 2);
      zoom(apart([px, py]) / apart(before), (px + other[0]) / 2, (py + other[1]) / 2);
    } else if (moved > 3) {
      tip.hidden = true;
      pan(dx, dy);
    }
    fingers.set(event.pointerId, [px, py]);
  });
  canvas.addEventListener("pointerup", (event) => {
    const [px, py] = place(event);
    if (fingers.size === 1 && moved <= 3) {
      choose(nearest(px, py), false);
      hover(chosen, px, py);
    }
    fingers.delete(event.pointerId);
  });
  canvas.addEventListener("pointercancel", (event) => fingers.delete(event.pointerId));
  canvas.addEventListener("pointerleave", () => hover(-1, 0, 0));
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas && !event.ctrlKey && !event.metaKey) return; // let the page scroll
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...place(event));
  }, { passive: false });
  const keys = {
    ArrowLeft: () => pan(60, 0), ArrowRight: () => pan(-60, 0), ArrowUp: () => pan(0, 60), ArrowDown: () => pan(0, -60),
    "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), 0: () => fit(bounds()),
    n: () => step(1), p: () => step(-1), Escape: () => choose(-1),
    Enter: () => { if (chosen >= 0 && items[chosen].card) location.hash = items[chosen].card; },
  };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });

  // ---- buttons -------------------------------------------------------------------------------------
  const actions = { in: () => zoom(1.5), out: () => zoom(1 / 1.5), fit: () => fit(bounds()), next: () => step(1), previous: () => step(-1) };
  for (const button of root.querySelectorAll("button[data-action]"))
    button.addEventListener("click", () => actions[button.dataset.action]());
  for (const button of root.querySelectorAll("button[data-show]"))
    button.addEventListener("click", () => {
      show[button.dataset.show] = !show[button.dataset.show];
      button.setAttribute("aria-pressed", String(show[button.dataset.show]));
      listeners.show();
      redraw();
    });
  for (const button of document.querySelectorAll("button[data-item]"))
    button.addEventListener("click", () => {
      choose(Number(button.dataset.item), true);
      root.scrollIntoView({ behavior: "smooth", block: "center" });
      canvas.focus({ preventScroll: true });
    });

  readColours();
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readColours();
    picture = undefined;
    redraw();
  });
  new ResizeObserver(resize).observe(canvas);
  choose(-1);
  resize();
  return {
    listeners, choose, visible, redraw,
    highlight: (number) => { if (number !== hovered) { hovered = number; redraw(); } },
    filter: (test) => { passes = test; redraw(); },
  };
}

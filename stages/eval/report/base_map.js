// Below the photos: streets and database photos stored in the page, and tiles from a server if one was named.
"use strict";

// Numbers that Python packed as base64 of little-endian int32.
function placecacheNumbers(text) {
  return new Int32Array(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
}

function placecacheBaseMap(pen, data, view, pixel, ground, redraw) {
  const dots = data.dots ? placecacheNumbers(data.dots) : [];
  const lines = data.streets ? placecacheNumbers(data.streets) : [];
  const origin = lines.length ? [lines[1] / 10, lines[2] / 10] : [0, 0];
  const tiles = new Map();
  let streets;

  // Lines as count, east, north, east, north, ... in decimetres.
  function streetPath() {
    const path = new Path2D();
    for (let at = 0; at < lines.length; at += 1 + 2 * lines[at])
      for (let point = 0; point < lines[at]; point++) {
        const east = lines[at + 1 + 2 * point] / 10 - origin[0], north = lines[at + 2 + 2 * point] / 10 - origin[1];
        if (point) path.lineTo(east, north); else path.moveTo(east, north);
      }
    return path;
  }

  function drawStreets(colour) {
    if (!lines.length) return;
    streets = streets || streetPath();
    const [left, top] = pixel(origin), scale = view.scale;
    pen.save();
    if (view.turned) pen.transform(0, scale, scale, 0, left, top);
    else pen.transform(scale, 0, 0, -scale, left, top);
    pen.lineWidth = Math.min(Math.max(1, 5 * scale), 5) / scale;
    pen.lineJoin = pen.lineCap = "round";
    pen.strokeStyle = colour;
    pen.stroke(streets);
    pen.restore();
  }

  function drawDots(colour) {
    pen.fillStyle = colour;
    const size = view.scale > 1 ? 3 : 2;
    for (let at = 0; at < dots.length; at += 2) {
      const [px, py] = pixel([dots[at] / 10, dots[at + 1] / 10]);
      if (px > 0 && py > 0 && px < view.width && py < view.height) pen.fillRect(px - size / 2, py - size / 2, size, size);
    }
  }

  // Polynomials turn metres into Web Mercator, a square of side 1, and back.
  for (const fit of data.tiles ? [data.tiles.to_world, data.tiles.to_ground] : []) {
    fit.from = fit.from.map(Number);
    fit.unit = Number(fit.unit);
    fit.terms = fit.terms.map((term) => term.map(Number));
  }

  function evaluate(point, { from, unit, terms }) {
    const a = (point[0] - from[0]) / unit, b = (point[1] - from[1]) / unit, sum = [0, 0];
    for (const [i, j, right, down] of terms) {
      const power = a ** i * b ** j;
      sum[0] += power * right;
      sum[1] += power * down;
    }
    return sum;
  }

  function drawTiles() {
    if (!data.tiles) return;
    const corners = [[0, 0], [view.width, 0], [0, view.height], [view.width, view.height]].map(([px, py]) =>
      evaluate(ground(px, py), data.tiles.to_world));
    const [west, east] = [0, 1].map((last) => Math[last ? "max" : "min"](...corners.map((corner) => corner[0])));
    const [north, south] = [0, 1].map((last) => Math[last ? "max" : "min"](...corners.map((corner) => corner[1])));
    const across = Math.hypot(corners[1][0] - corners[0][0], corners[1][1] - corners[0][1]);
    const level = Math.max(0, Math.min(19, Math.round(Math.log2(view.width / across / 256)))), count = 2 ** level;
    for (let row = Math.floor(north * count); row <= Math.floor(south * count); row++)
      for (let column = Math.floor(west * count); column <= Math.floor(east * count); column++) drawTile(level, column, row);
  }

  function drawTile(level, column, row) {
    const count = 2 ** level, name = `${level}/${column}/${row}`;
    if (column < 0 || row < 0 || column >= count || row >= count) return;
    let tile = tiles.get(name);
    if (!tile) {
      tile = new Image();
      tile.onload = redraw;
      tile.src = data.tiles.url.replace("{z}", level).replace("{x}", column).replace("{y}", row);
      tiles.set(name, tile);
    }
    if (!tile.complete || !tile.naturalWidth) return;
    const corner = (right, down) => pixel(evaluate([(column + right) / count, (row + down) / count], data.tiles.to_ground));
    const [left, top] = corner(0, 0), [rightX, rightY] = corner(1, 0), [downX, downY] = corner(0, 1);
    pen.save();
    pen.transform((rightX - left) / 256, (rightY - top) / 256, (downX - left) / 256, (downY - top) / 256, left, top);
    pen.drawImage(tile, 0, 0, 256.5, 256.5);
    pen.restore();
  }

  return { drawStreets, drawDots, drawTiles };
}

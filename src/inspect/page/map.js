// SPDX-License-Identifier: Apache-2.0
// The map of one head on a canvas: cells, names, what each query spreads and each key receives; zoom, pan, a cursor.
"use strict";

const view = {scale: 0, x: 0, y: 0};  // CSS pixels a cell, and the cell at the corner; scale 0: the whole
const kFar = 26, kRoomForNames = 11;

class HeadMap {
  constructor(canvas) {
    this.canvas = canvas;
    this.head = null;
    this.levels = [];
    canvas.addEventListener("pointermove", (event) => this.moved(event));
    canvas.addEventListener("pointerdown", (event) => this.pressed(event));
    canvas.addEventListener("pointerup", (event) => this.released(event));
    canvas.addEventListener("pointercancel", () => (this.grip = null));
    canvas.addEventListener("pointerleave", ({pointerType}) => {
      if (pointerType !== "touch") point(null);  // a finger that is lifted leaves what it has shown
    });
    canvas.addEventListener("wheel", (event) => this.wheeled(event), {passive: false});
    canvas.addEventListener("keydown", (event) => this.keyed(event));
    new ResizeObserver(redraw).observe(canvas);
  }

  // most: the weight that is brightest.
  take(head, most) {
    if (this.head === head && this.most === most) return;
    Object.assign(this, {head, most, levels: []});
  }

  // The map as a picture of one pixel a cell, or of one for the largest of 2^level by 2^level cells.
  picture(level) {
    if (this.levels[level]) return this.levels[level];
    const {rows, columns, map} = this.head, step = 2 ** level;
    const height = Math.ceil(rows / step), width = Math.ceil(columns / step), largest = new Float32Array(height * width);
    for (let i = 0; i < rows; ++i)
      for (let j = 0; j < columns; ++j) {
        const at = (i >> level) * width + (j >> level), value = map[i * columns + j];
        if (!(value <= largest[at])) largest[at] = value;
      }
    const picture = document.createElement("canvas");
    picture.width = width;
    picture.height = height;
    const context = picture.getContext("2d"), image = context.createImageData(width, height);
    largest.forEach((value, at) => image.data.set([...colour(Math.sqrt(value / this.most)), 255], at * 4));
    context.putImageData(image, 0, 0);
    return (this.levels[level] = picture);
  }

  // Where the cells lie in the canvas, around them names and sums.
  area() {
    const {rows, columns} = this.head, width = this.canvas.clientWidth, names = Math.min(90, Math.round(width * 0.2));
    const inside = width - names - kFar - 6, whole = Math.min(inside / columns, Math.max(inside, 120) / rows, 64);
    const top = this.named(Math.max(view.scale, whole)) ? Math.round(names * 0.8) : 22;
    const height = Math.ceil(Math.min(rows * whole, inside));
    return {left: names, top, width: Math.min(inside, Math.ceil(columns * whole)), height, whole,
      full: top + height + kFar + 18};
  }
  named(scale) {
    return scale >= kRoomForNames && this.head.bin === 1;
  }
  scale() {
    return Math.max(view.scale, this.area().whole);
  }

  cellAt(event) {
    const box = this.canvas.getBoundingClientRect(), area = this.area(), scale = this.scale();
    const x = event.clientX - box.left - area.left, y = event.clientY - box.top - area.top;
    const j = Math.floor(view.x + x / scale), i = Math.floor(view.y + y / scale);
    const row = y >= 0 && y < area.height && i < this.head.rows, column = x >= 0 && x < area.width && j < this.head.columns;
    return row || column ? {query: row ? i : -1, key: column ? j : -1} : null;
  }

  moved(event) {
    if (!this.head) return;
    if (this.grip && event.buttons) {
      const scale = this.scale(), dx = event.clientX - this.grip.x, dy = event.clientY - this.grip.y;
      if (Math.abs(dx) + Math.abs(dy) > 3) this.grip.dragged = true;
      if (this.grip.dragged && view.scale > this.area().whole) {
        view.x = this.grip.left - dx / scale;
        view.y = this.grip.top - dy / scale;
        this.keepInside();
        redraw();
        return;
      }
    }
    point(this.cellAt(event));
  }
  pressed(event) {
    if (event.button !== 0) return;
    this.grip = {x: event.clientX, y: event.clientY, left: view.x, top: view.y, dragged: false};
    if (event.pointerType !== "touch") this.canvas.setPointerCapture(event.pointerId);
    this.moved(event);
  }
  released() {
    const cell = state.cell, clicked = this.grip && !this.grip.dragged;
    this.grip = null;
    if (clicked && cell) this.chooseAt(cell);
  }
  chooseAt({query, key}) {
    choose(query >= 0 ? {side: "q", token: query * this.head.bin} : {side: "k", token: key * this.head.bin});
    showToken();
  }
  wheeled(event) {
    if (!event.ctrlKey && document.activeElement !== this.canvas) return;
    const scale = this.scale(), {whole} = this.area();
    if (!event.ctrlKey && (event.deltaY < 0 ? scale >= Math.max(48, whole) : scale < whole * 1.001)) return;  // the page scrolls
    event.preventDefault();
    this.zoom(event.deltaY < 0 ? 1.25 : 0.8, this.cellAt(event));
  }

  zoom(factor, around = state.cell) {
    const area = this.area(), before = this.scale();
    view.scale = Math.min(Math.max(before * factor, area.whole), Math.max(48, area.whole));
    const keep = (start, at, extent) => {
      const middle = at >= 0 ? at + 0.5 : start + extent / before / 2;
      return middle - ((middle - start) * before) / view.scale;
    };
    view.x = keep(view.x, around ? around.key : -1, area.width);
    view.y = keep(view.y, around ? around.query : -1, area.height);
    this.keepInside();
    redraw();
  }
  keepInside() {
    const area = this.area(), scale = this.scale();
    view.x = Math.max(0, Math.min(view.x, this.head.columns - area.width / scale));
    view.y = Math.max(0, Math.min(view.y, this.head.rows - area.height / scale));
  }
  showCell({query, key}) {
    const area = this.area(), scale = this.scale();
    view.x = Math.min(Math.max(view.x, key + 1 - area.width / scale), key);
    view.y = Math.min(Math.max(view.y, query + 1 - area.height / scale), query);
    this.keepInside();
  }

  keyed(event) {
    if (!this.head || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], PageUp: [-10, 0],
      PageDown: [10, 0], Home: [0, -1e9], End: [0, 1e9]}[event.key];
    if (step) {
      const from = state.cell || {query: 0, key: step[1] === 1 ? -1 : 0};
      const cell = {query: Math.min(Math.max(from.query + step[0], 0), this.head.rows - 1),
        key: Math.min(Math.max(from.key + step[1], 0), this.head.columns - 1)};
      point(cell);
      this.showCell(cell);
    } else if (event.key === "+" || event.key === "=") this.zoom(1.5);
    else if (event.key === "-") this.zoom(1 / 1.5);
    else if (event.key === "0") wholeMap();
    else if (event.key === "Enter" && state.cell) this.chooseAt(state.cell);
    else if (event.key === "Escape") {
      point(null);
      choose({token: -1});
    }
    else return;
    event.preventDefault();
  }

  draw() {
    if (!this.canvas.clientWidth) return;
    if (!this.head) return cleared(this.canvas, this.canvas.clientWidth, this.canvas.clientHeight);
    this.keepInside();
    const area = this.area(), scale = this.scale();
    this.canvas.style.height = `${area.full}px`;
    this.canvas.style.touchAction = scale > area.whole ? "none" : "";
    const context = cleared(this.canvas, this.canvas.clientWidth, area.full);
    context.save();
    context.beginPath();
    context.rect(area.left, area.top, area.width, area.height);
    context.clip();
    context.imageSmoothingEnabled = false;
    const level = Math.max(0, Math.ceil(-Math.log2(scale * (window.devicePixelRatio || 1)) - 0.001));
    const picture = this.picture(level), cell = scale * 2 ** level;
    context.drawImage(picture, area.left - view.x * scale, area.top - view.y * scale, picture.width * cell,
      picture.height * cell);
    this.drawChosen(context, area, scale);
    context.restore();
    this.markToken(context, area, scale);
    this.drawSums(context, area, scale);
    this.drawNames(context, area, scale);
  }

  // What is not of the chosen token's row and column is dimmed; the cell under the cursor has a frame.
  drawChosen(context, area, scale) {
    const {bin} = this.head, token = tokenShown(), {cell} = state;
    const left = (j) => area.left + (j - view.x) * scale, top = (i) => area.top + (i - view.y) * scale;
    if (token) {
      const at = Math.floor(token.token / bin), row = oneSentence || token.side === "q";
      const column = oneSentence || token.side === "k";
      context.beginPath();
      context.rect(area.left, area.top, area.width, area.height);
      if (row) context.rect(area.left, top(at), area.width, scale);
      if (column) context.rect(left(at), area.top, scale, row ? top(at) - area.top : area.height);
      if (row && column) context.rect(left(at), top(at) + scale, scale, area.top + area.height - top(at) - scale);
      context.fillStyle = themed("--dim");
      context.fill("evenodd");
    }
    if (!cell) return;
    context.lineWidth = 2;
    for (const [ink, out] of [["#000", 2], ["#fff", 0.5]]) {
      context.strokeStyle = ink;
      if (cell.query >= 0 && cell.key >= 0)
        context.strokeRect(left(cell.key) - out, top(cell.query) - out, scale + 2 * out, scale + 2 * out);
      else if (cell.query >= 0) context.strokeRect(area.left - 9, top(cell.query) - out, area.width + 18, scale + 2 * out);
      else context.strokeRect(left(cell.key) - out, area.top - 9, scale + 2 * out, area.height + 18);
    }
  }

  // Ticks outside the map, at the chosen token's row and column.
  markToken(context, area, scale) {
    const token = tokenShown(), {bin} = this.head;
    if (!token) return;
    const tick = (start, extent, draw) => {
      const from = Math.max(0, (Math.floor(token.token / bin) - start) * scale);
      const to = Math.min(extent, (Math.floor(token.token / bin) + 1 - start) * scale);
      if (to > from) draw(from, Math.max(to - from, 2));
    };
    context.fillStyle = themed("--accent");
    if (oneSentence || token.side === "q")
      tick(view.y, area.height, (at, long) => context.fillRect(area.left - 4, area.top + at, 3, long));
    if (oneSentence || token.side === "k")
      tick(view.x, area.width, (at, long) => context.fillRect(area.left + at, area.top - 4, long, 3));
  }

  // Right: entropy of each row. Below: what each key receives.
  drawSums(context, area, scale) {
    const {bin, entropy, received, rows, columns} = this.head;
    const mean = (list, at) => {
      const part = list.subarray(at * bin, (at + 1) * bin);
      return part.reduce((sum, value) => sum + (value || 0), 0) / part.length;
    };
    const bars = (list, count, start, extent, draw) => {
      const values = Array.from({length: count}, (_, at) => mean(list, at)), most = Math.max(...values) || 1;
      for (let at = Math.max(0, Math.floor(start)); at < count && (at - start) * scale < extent; ++at) {
        const from = Math.max(0, (at - start) * scale), to = Math.min(extent, (at + 1 - start) * scale);
        draw(from, Math.max(to - from - (scale > 4 ? 1 : 0), 0.5), (values[at] / most) * (kFar - 4));
      }
    };
    context.fillStyle = themed("--bar");
    const right = area.left + area.width + 4, below = area.top + area.height + 4;
    bars(entropy, rows, view.y, area.height, (at, size, long) => context.fillRect(right, area.top + at, long, size));
    if (received)
      bars(received, columns, view.x, area.width, (at, size, long) => context.fillRect(area.left + at, below, size, long));
    context.fillStyle = themed("--quiet");
    context.font = "10px system-ui, sans-serif";
    context.textBaseline = "alphabetic";
    context.textAlign = "right";
    context.fillText("entropy", right + kFar, below + kFar + 8);
    if (received) context.fillText("received", area.left - 5, below + 9);
  }

  // Tokens where there is room, else a position now and then.
  drawNames(context, area, scale) {
    const {bin} = this.head, token = tokenShown(), named = this.named(scale), every = named ? 1 : niceStep((48 / scale) * bin);
    const strip = (tokens, side, start, extent, draw) => {
      for (let at = Math.ceil((start * bin) / every) * every; at < tokens.length; at += every) {
        const middle = (at / bin + (named ? 0.5 : 0) - start) * scale;
        if (middle > extent) break;
        const shown = token && token.token === at && (oneSentence || token.side === side);
        context.fillStyle = themed(shown ? "--ink" : "--quiet");
        draw(named ? readable(tokens[at]) : String(at), middle);
      }
    };
    context.font = `${named ? Math.min(13, Math.max(10, scale * 0.7)) : 11}px system-ui, sans-serif`;
    context.textBaseline = "middle";
    context.direction = "ltr";
    context.textAlign = "right";
    strip(meta.q_tokens, "q", view.y, area.height, (text, middle) =>
      context.fillText(fitted(context, text, area.left - 9), area.left - 6, area.top + middle));
    context.textAlign = named ? "left" : "center";
    strip(keyTokens, "k", view.x, area.width, (text, middle) => {
      context.save();
      context.translate(area.left + middle, area.top - 9);
      if (named) context.rotate(-Math.PI / 3);
      context.fillText(named ? fitted(context, text, (area.top - 14) / 0.87) : text, 0, 0);
      context.restore();
    });
  }
}

// 1, 2 or 5 times a power of ten.
function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(Math.max(least, 1)));
  return [1, 2, 5, 10].map((digit) => digit * power).find((step) => step >= least);
}

function fitted(context, text, room) {
  if (context.measureText(text).width <= room) return text;
  let length = Math.min(text.length, 24);
  while (length > 1 && context.measureText(text.slice(0, length) + "\u2026").width > room) --length;
  return text.slice(0, length) + "\u2026";
}

function wholeMap() {
  Object.assign(view, {scale: 0, x: 0, y: 0});
  redraw();
}

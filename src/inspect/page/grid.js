// SPDX-License-Identifier: Apache-2.0
// The grid of layers and heads, coloured by one number a head, and the labels of the head that is chosen.
"use strict";

const kListed = 24;  // heads of a label
const cells = [];  // layer by layer

const statistic = () => meta.statistics.find(({id}) => id === state.statistic) || meta.statistics[0];
const headName = (place) => `layer ${Math.floor(place / meta.heads)}, head ${place % meta.heads}`;
const chosen = () => state.layer * meta.heads + state.head;

function valuesShown() {
  const shown = statistic();
  return state.show === "norm" && shown.norm ? shown.norm : shown.values;
}

const timesNorms = () => (state.show === "norm" ? ", times norms" : "");
const labelNames = (place) => meta.labels[place].map(({name}) => name).join(", ");

function sayHead(place) {
  const shown = statistic(), norm = shown.norm ? timesNorms() : "", names = labelNames(place);
  say(element("grid-readout"), `${headName(place)}: ${shown.name}${norm} ${short(valuesShown()[place])}` +
    `${shown.unit ? " " + shown.unit : ""}${names ? "; " + names : ""}`);
}

const within = (value, count) => Math.min(Math.max(value, 0), count - 1);

// The chosen head steps heads on, from the last of a layer to the first of the next.
function stepHead(step) {
  const place = within(chosen() + step, cells.length);
  choose({layer: Math.floor(place / meta.heads), head: place % meta.heads});
}

function buildGrid() {
  const grid = element("grid");
  grid.style.setProperty("--heads", meta.heads);
  const top = make("div", undefined, "line");
  top.setAttribute("role", "row");
  for (let head = -1; head < meta.heads; ++head) {
    const title = make("span", head < 0 || (meta.heads > 16 && head % 4) ? "" : String(head), "axis");
    title.setAttribute("role", "columnheader");
    top.append(title);
  }
  grid.append(top);
  for (let layer = 0; layer < meta.layers; ++layer) {
    const line = make("div", undefined, "line");
    line.setAttribute("role", "row");
    const title = make("span", String(layer), "axis");
    title.setAttribute("role", "rowheader");
    line.append(title);
    for (let head = 0; head < meta.heads; ++head) {
      const cell = make("div", undefined, "head"), place = cells.length;
      cell.setAttribute("role", "gridcell");
      cell.append(make("span"));
      cell.addEventListener("click", () => choose({layer, head}));
      cell.addEventListener("pointerenter", () => sayHead(place));
      cell.addEventListener("focus", () => sayHead(place));
      cells.push(cell);
      line.append(cell);
    }
    grid.append(line);
  }
  grid.addEventListener("pointerleave", () => sayHead(chosen()));
  grid.addEventListener("keydown", (event) => {
    const step = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -meta.heads],
      End: [0, meta.heads]}[event.key];
    if (!step) return;
    event.preventDefault();
    choose({layer: within(state.layer + step[0], meta.layers), head: within(state.head + step[1], meta.heads)});
    cells[chosen()].focus();
  });
  for (const {id, name} of meta.statistics) {
    const option = make("option", name);
    option.value = id;
    element("statistic").append(option);
    element("definitions").append(make("dt", name), make("dd", meta.statistics.find((s) => s.id === id).help));
  }
  element("statistic").addEventListener("change", (event) => choose({statistic: event.target.value}));
  element("from-least").addEventListener("change", ({target}) => choose({range: target.checked ? "least" : "zero"}));
  buildLabelIndex();
}

// Of each label the heads that have it, those with the largest number first.
function buildLabelIndex() {
  const places = new Map();
  meta.labels.forEach((labels, place) => labels.forEach(({name, value}) => {
    if (!places.has(name)) places.set(name, []);
    places.get(name).push({place, value});
  }));
  element("label-index").replaceChildren(...[...places].sort(([a], [b]) => (a === "mixed") - (b === "mixed")).map(([name, found]) => {
    const line = make("p"), all = make("button", name, "label");
    all.type = "button";
    all.dataset.label = name;
    all.title = `Show only the heads that are ${name}`;
    all.addEventListener("click", () => choose({label: state.label === name ? "" : name}));
    line.append(all, ...found.sort((a, b) => b.value - a.value || a.place - b.place).slice(0, kListed).map(({place}) => {
      const layer = Math.floor(place / meta.heads), head = place % meta.heads, one = make("button", `${layer}.${head}`, "place");
      one.type = "button";
      set(one, "aria-label", `${headName(place)}, ${name}`);
      one.addEventListener("click", () => choose({layer, head}));
      return one;
    }));
    if (found.length > kListed) line.append(make("span", ` and ${found.length - kListed} more`, "quiet"));
    return line;
  }));
  const buttons = [...element("label-index").querySelectorAll("button")];
  buttons.forEach((button, at) => (button.tabIndex = at ? -1 : 0));
  element("label-index").addEventListener("keydown", (event) => {
    const step = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1, Home: -1e9, End: 1e9}[event.key];
    if (!step) return;
    event.preventDefault();
    // Up and down go from label to label.
    const among = /Up|Down/.test(event.key) ? buttons.filter((one) => one.dataset.label || one === event.target) : buttons;
    const next = among[within(among.indexOf(event.target) + step, among.length)];
    for (const button of buttons) button.tabIndex = button === next ? 0 : -1;
    next.focus();
  });
}

function drawLabelIndex() {
  const here = `${state.layer}.${state.head}`;
  for (const button of element("label-index").querySelectorAll("button"))
    set(button, "aria-pressed", button.dataset.label ? button.dataset.label === state.label : button.textContent === here);
}

// The scale begins at 0, or at the least head, and ends at the largest.
function drawGrid() {
  const shown = statistic(), values = valuesShown();
  const numbers = values.filter((value) => value !== null), most = Math.max(...numbers, 0) || 1;
  const least = state.range === "least" && numbers.length ? Math.min(...numbers) : 0;
  cells.forEach((cell, place) => {
    const value = values[place] === null ? NaN : values[place], rgb = colour(most > least ? (value - least) / (most - least) : 0 * value);
    const number = short(value), names = labelNames(place), two = value < 1 && value > 0 ? value.toFixed(2) : number;
    cell.style.backgroundColor = css(rgb);
    cell.classList.toggle("bright", isLight(rgb));
    cell.classList.toggle("other", state.label !== "" && !meta.labels[place].some(({name}) => name === state.label));
    say(cell.firstChild, value > 0 && two.startsWith("0.") ? two.slice(1) : two);
    set(cell, "aria-label", `${headName(place)}: ${number} ${shown.unit}${names ? "; " + names : ""}`);
    set(cell, "aria-selected", place === chosen());
    cell.tabIndex = place === chosen() ? 0 : -1;
  });
  element("statistic").value = shown.id;
  element("from-least").checked = state.range === "least";
  say(element("heads-title"), `Heads${shown.norm ? timesNorms() : ""}`);
  say(element("help"), shown.help);
  say(element("low"), least === 0 ? "0" : short(least));
  say(element("high"), `${short(most)} ${shown.unit}${numbers.length < values.length ? "; grey: no number" : ""}`);
  drawLabelIndex();
  showChosenHead();
  drawScale(element("legend"), (share) => share);
  if (!element("grid").matches(":hover")) sayHead(chosen());
}

// In a grid wider than its box.
function showChosenHead() {
  const box = element("grid-box"), cell = cells[chosen()];
  const left = cell.offsetLeft - box.offsetLeft - 30, right = cell.offsetLeft - box.offsetLeft + cell.offsetWidth + 6;
  if (left < box.scrollLeft) box.scrollLeft = left;
  else if (right > box.scrollLeft + box.clientWidth) box.scrollLeft = right - box.clientWidth;
}

function drawLabels() {
  say(element("head-name"), `Layer ${state.layer}, head ${state.head}`);
  element("labels").replaceChildren(...meta.labels[chosen()].map(({name, measure, value, threshold, source}) => {
    const item = make("li");
    item.append(make("b", name), ` ${measure} ${short(value)}`);
    if (threshold !== null) item.append(`, threshold ${short(threshold)}`);
    if (source) item.append(make("span", ` ${source}`, "quiet"));
    return item;
  }));
}

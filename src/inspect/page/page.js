// SPDX-License-Identifier: Apache-2.0
// What is chosen, kept in the address; who draws when it changes.
"use strict";

// token -1: none; least -1: by the head; side: q or k, where it was chosen. cell and hovered are under the pointer and not kept.
const state = {layer: 0, head: 0, statistic: meta.statistics[0].id, side: "q", token: -1, show: "plain", specials: false,
  least: -1, range: "zero", label: "", theme: "", cell: null, hovered: null};
const kKept = ["layer", "head", "statistic", "token", "show", "specials", "least", "range", "label", "theme"];
const initial = {...state};
const dark = matchMedia("(prefers-color-scheme: dark)");
let maps = [], waiting = 0, asked = 0, moved = false;

const tokenShown = () => state.hovered || (state.token >= 0 ? {side: state.side, token: state.token} : null);
const headShown = () => maps[state.show === "norm" ? 1 : 0].head;

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const whole = (name, count) => {
    const value = Number(given.get(name));
    return given.has(name) && Number.isInteger(value) && value >= 0 && value < count ? value : initial[name];
  };
  const one = (name, values) => (values.includes(given.get(name)) ? given.get(name) : initial[name]);
  const [, side, token] = /^([qk]?)(\d+)$/.exec(given.get("token") || "") || [];
  state.side = side === "k" ? "k" : "q";
  state.token = token !== undefined && +token < lists[state.side].tokens.length ? +token : -1;
  state.layer = whole("layer", meta.layers);
  state.head = whole("head", meta.heads);
  state.statistic = one("statistic", meta.statistics.map(({id}) => id));
  state.show = meta.norm ? one("show", ["plain", "norm", "both"]) : "plain";
  state.theme = one("theme", ["light", "dark"]);
  state.specials = given.get("specials") === "true";
  state.range = one("range", ["zero", "least"]);
  state.label = one("label", meta.labels.flat().map(({name}) => name));
  state.least = whole("least", kLeast.length);
}

function writeAddress() {
  const kept = new URLSearchParams();
  for (const name of kKept)
    if (name === "token" ? state.token >= 0 : state[name] !== initial[name] || name === "layer" || name === "head")
      kept.set(name, name === "token" ? (state.side === "k" ? "k" : "") + state.token : state[name]);
  try {
    history.replaceState(null, "", `#${kept}`);
  } catch {
    // A page inside a notebook has no address of its own.
  }
}

function choose(change) {
  Object.assign(state, change);
  moved = true;
  update();
}

async function update() {
  const turn = ++asked, box = document.documentElement;
  box.dataset.theme = state.theme || (dark.matches ? "dark" : "light");
  box.dataset.show = state.show;
  element("theme").setAttribute("aria-pressed", box.dataset.theme === "dark");
  for (const button of element("show").children)
    button.setAttribute("aria-pressed", button.dataset.show === state.show);
  element("specials").checked = state.specials;
  drawGrid();
  drawLabels();
  redraw();
  try {
    const heads = await Promise.all([false, true].slice(0, maps.length)
      .map((norm) => loadHead(state.layer, state.head, norm)));
    if (turn !== asked) return;
    const most = Math.max(...heads.map(({most}) => most)) || 1;
    maps.forEach((map, at) => map.take(heads[at], most));
    drawScale(element("scale"), Math.sqrt);
    say(element("most"), short(most));
    element("trouble").hidden = true;
    maps.forEach(({canvas}, at) => canvas.setAttribute("aria-label", `Map of layer ${state.layer}, head ${state.head}` +
      `${at ? ", weights times norms" : ""}: ${meta.q_len} queries by ${meta.kv_len} keys`));
    sayCell();
    redraw();
  } catch (error) {
    if (turn !== asked) return;
    for (const map of maps) map.take(null);
    trouble(`The data of layer ${state.layer}, head ${state.head} cannot be read: ${error.message.replace(/\.$/, "")}.`);
    sayCell();
    redraw();
  }
}

function redraw() {
  if (!waiting) waiting = requestAnimationFrame(draw);
}

function draw() {
  waiting = 0;
  if (moved) writeAddress();
  moved = false;
  const head = maps.length ? headShown() : null;
  for (const map of maps) map.draw();
  drawSentence(head);
  drawStrongest(head);
}

const same = (a, b, ...names) => a === b || Boolean(a && b && names.every((name) => a[name] === b[name]));

function point(cell) {
  if (same(cell, state.cell, "query", "key") && (cell || !state.hovered)) return;
  state.cell = cell;
  state.hovered = cell && maps[0].head.bin === 1 && (cell.query < 0 || cell.key < 0)
    ? cell.query < 0 ? {side: "k", token: cell.key} : {side: "q", token: cell.query} : null;
  sayCell();
  redraw();
}

function hover(token) {
  if (same(token, state.hovered, "side", "token") && !state.cell) return;
  state.hovered = token;
  state.cell = null;
  sayCell();
  redraw();
}

const range = (at, bin, count) => (bin === 1 ? `${at}` : `${at * bin}\u2013${Math.min((at + 1) * bin, count) - 1}`);

// One line that says what is under the pointer or the cursor.
function sayCell() {
  const {cell} = state, head = headShown(), token = tokenShown();
  let said = "Point at a cell to read its weight.";
  if (head && cell && cell.query >= 0 && cell.key >= 0) {
    const numbers = maps.map(({head: {map, columns}}, at) =>
      `${at ? "times norm" : head.bin === 1 ? "weight" : "mean weight"} ${digits(map[cell.query * columns + cell.key])}`);
    said = head.bin === 1
      ? `${quoted(meta.q_tokens, cell.query)} \u2192 ${quoted(keyTokens, cell.key)}: ${numbers.join(", ")}`
      : `queries ${range(cell.query, head.bin, meta.q_len)} \u2192 keys ${range(cell.key, head.bin, meta.kv_len)}: ` +
        numbers.join(", ");
  } else if (head && cell && head.bin > 1)
    said = cell.query >= 0 ? `queries ${range(cell.query, head.bin, meta.q_len)}`
      : `keys ${range(cell.key, head.bin, meta.kv_len)}`;
  else if (head && token) {
    const query = token.side === "q", links = (query ? head.looks(token.token) : head.lookers(token.token)).slice(0, 3);
    said = `${quoted(query ? meta.q_tokens : keyTokens, token.token)} ${query ? "looks at" : "is looked at by"}` +
      `${timesNorms()} ` + (links.length ? "" : "nothing") + links.map((link) => `${quoted(query ? keyTokens : meta.q_tokens, link.token)} ${digits(link.weight)}`).join(", ");
  }
  say(element("readout"), said);
}

function trouble(text) {
  element("trouble").textContent = text;
  element("trouble").hidden = false;
}

function describe() {
  const text = oneSentence ? counted(meta.q_len, "token")
    : `${meta.q_len} ${meta.q_len === 1 ? "query" : "queries"}, ${counted(meta.kv_len, "key")}`;
  document.querySelector("h1").textContent = readable(meta.title);
  element("about").textContent = `${text} \u00b7 ${meta.layers} \u00d7 ${meta.heads} heads \u00b7 ` +
    (meta.full ? "all weights" : `means of ${meta.bin} \u00d7 ${meta.bin} and each query's ${meta.top === 1 ? "largest weight" : meta.top + " largest weights"}`);
  element("exactness").textContent = meta.full
    ? "Every weight p is here, to within 0.000016" + (meta.norm ? ", its product with a norm to within the share 0.000016 / " +
      "\u221ap of itself" : "") + "; the numbers of the grid come from the weights before they were rounded."
    : `The text is too long for all weights: a cell of the map is the weight that a query of ${meta.bin} gives to ` +
      `${meta.bin} keys, as a mean; lines show each query's ${meta.top} largest weights, to within 0.000016.`;
  if (!meta.full) say(element("choosing"), "the first of the row's queries");
  element("show").hidden = !meta.norm;
  document.documentElement.dataset.wide = meta.heads > 16;
  document.documentElement.dataset.norm = meta.norm;
}

function start() {
  element("trouble").hidden = true;
  document.querySelector("main").hidden = element("how").hidden = false;
  maps = (meta.norm ? ["plain", "norm"] : ["plain"]).map((id) => new HeadMap(element(id)));
  readAddress();
  describe();
  buildGrid();
  buildSentence();
  element("theme").addEventListener("click", () =>
    choose({theme: document.documentElement.dataset.theme === "dark" ? "light" : "dark"}));
  element("show").addEventListener("click", ({target}) => target.dataset.show && choose({show: target.dataset.show}));
  element("specials").addEventListener("change", ({target}) => choose({specials: target.checked}));
  element("least").addEventListener("input", ({target}) => choose({least: Number(target.value)}));
  element("nearer").addEventListener("click", () => maps[0].zoom(1.5));
  element("farther").addEventListener("click", () => maps[0].zoom(1 / 1.5));
  element("whole").addEventListener("click", wholeMap);
  addEventListener("keydown", ({key, ctrlKey, altKey, metaKey}) => {
    if ((key === "[" || key === "]") && !ctrlKey && !altKey && !metaKey) stepHead(key === "[" ? -1 : 1);
  });
  dark.addEventListener("change", update);
  addEventListener("hashchange", () => {
    readAddress();
    update();
    showToken();
  });
  update();
  showToken();
}

start();

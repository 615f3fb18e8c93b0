// SPDX-License-Identifier: Apache-2.0
// The sentence twice, side by side, with a line for each link; and one token's strongest links as a list. Only what is
// in sight is there, whatever the length.
"use strict";

const kLine = 24;  // CSS pixels a token
const kStrongest = 24;  // links of a chosen token
const kLeast = [0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5];
const lists = {q: {box: element("queries"), tokens: meta.q_tokens}, k: {box: element("keys"), tokens: keyTokens}};

// How far a list has moved up. Of two sentences the shorter moves by its share, so that both begin and end together.
function scrolled(side) {
  const box = element("links"), room = lists[side].tokens.length * kLine - box.clientHeight;
  const most = Math.max(meta.q_len, meta.kv_len) * kLine - box.clientHeight;
  return room <= 0 ? 0 : (box.scrollTop * room) / most;
}
const inSight = (side) => {
  const from = scrolled(side), {length} = lists[side].tokens;
  return [Math.floor(from / kLine), Math.min(length, Math.ceil((from + element("links").clientHeight) / kLine))];
};

function buildSentence() {
  const box = element("links"), count = Math.max(meta.q_len, meta.kv_len);
  element("spacer").style.height = `${count * kLine}px`;
  box.style.height = `${Math.min(count * kLine, 24 * kLine)}px`;
  box.addEventListener("scroll", redraw);
  new ResizeObserver(redraw).observe(box);
  for (const [side, {box: list, tokens}] of Object.entries(lists)) {
    const tokenOf = (event) => event.target.closest("[role=option]");
    list.addEventListener("pointerover", (event) => tokenOf(event) && hover({side, token: +tokenOf(event).dataset.token}));
    list.addEventListener("pointerleave", () => hover(null));
    list.addEventListener("click", (event) => {
      if (!tokenOf(event)) return;
      const token = +tokenOf(event).dataset.token;
      choose(state.token === token && state.side === side ? {token: -1} : {side, token});
    });
    list.addEventListener("keydown", (event) => {
      const step = {ArrowUp: -1, ArrowDown: 1, PageUp: -10, PageDown: 10, Home: -1e9, End: 1e9}[event.key];
      if (event.key === "Escape") return choose({token: -1, cell: null});
      if (!step) return;
      event.preventDefault();
      const from = state.token < 0 ? (step > 0 ? -1 : tokens.length) : state.token;
      choose({side, token: within(from + step, tokens.length), cell: null});
      showToken();
    });
  }
}

// Scrolls the sentence, not the page, so that the chosen token is seen.
function showToken() {
  if (state.token < 0) return;
  const box = element("links"), top = state.token * kLine, from = scrolled(state.side), height = box.clientHeight;
  const room = lists[state.side].tokens.length * kLine - height;
  if (room > 0 && (top < from || top + kLine > from + height))
    box.scrollTop = ((top - height / 2) * (Math.max(meta.q_len, meta.kv_len) * kLine - height)) / room;
}

// What is lit: the chosen or hovered token, or both ends of the link under the pointer on the map.
const linkShown = () => {
  const {cell} = state, head = headShown();
  return head && head.bin === 1 && cell && cell.query >= 0 && cell.key >= 0 ? cell : null;
};

function drawTokens() {
  const token = tokenShown(), link = linkShown();
  for (const [side, {box: list, tokens}] of Object.entries(lists)) {
    const [first, last] = inSight(side), from = scrolled(side), options = [];
    for (let at = first; at < last; ++at) {
      const option = list.children[at - first] || list.appendChild(make("div", undefined, "token"));
      options.push(option);
      set(option, "role", "option");
      set(option, "id", `${side}-token-${at}`);
      set(option, "data-token", at);
      option.style.top = `${at * kLine - from}px`;
      say(option, readable(tokens[at]));
      set(option, "title", `${at}: ${readable(tokens[at])}`);
      set(option, "aria-setsize", tokens.length);
      set(option, "aria-posinset", at + 1);
      set(option, "aria-selected", state.side === side && state.token === at);
      option.classList.toggle("special", Boolean(specials[side][at]));
      option.classList.toggle("shown", link ? at === (side === "q" ? link.query : link.key)
        : Boolean(token) && token.token === at && (oneSentence || token.side === side));
    }
    while (list.children.length > options.length) list.lastChild.remove();
    if (state.side === side && state.token >= first && state.token < last)
      set(list, "aria-activedescendant", `${side}-token-${state.token}`);
    else list.removeAttribute("aria-activedescendant");
  }
}

const leftOut = (query, key) => state.specials && (specials.q[query] || specials.k[key]);

// All links of the queries in sight, and of two sentences those of the keys in sight, too.
function linksInSight(head) {
  const [first, last] = inSight("q"), [firstKey, lastKey] = inSight("k"), links = [];
  const add = (query, key, weight) => {
    if (weight >= 1e-6 && !leftOut(query, key)) links.push({query, key, weight});
  };
  for (let query = first; query < last; ++query)
    head.looks(query).slice(0, 200).forEach(({token, weight}) => add(query, token, weight));
  for (let key = firstKey; !oneSentence && key < lastKey; ++key)
    head.lookers(key).slice(0, 200).forEach(({token, weight}) => (token < first || token >= last) && add(token, key, weight));
  return links;
}

// The step from which links are drawn: the one set, or the largest that leaves two links a query in sight when a head
// is first shown.
function leastStep(head) {
  if (state.least >= 0) return state.least;
  const found = `${state.layer}.${state.head}.${state.show === "norm"}.${state.specials}`;
  if (leastStep.of !== found && head) {
    const links = linksInSight(head), [first, last] = inSight("q");
    const enough = (step) => links.filter(({weight}) => weight >= kLeast[step]).length >= 2 * (last - first);
    let step = kLeast.length - 1;
    while (step > 0 && !enough(step)) --step;
    Object.assign(leastStep, {of: found, step});
  }
  return leastStep.step || 0;
}

// {query, key, weight} of the links to draw, the strongest last: that of the map's cell, those of a token, or the larger
// ones of what is in sight.
function linksShown(head) {
  const token = tokenShown(), cell = linkShown(), least = kLeast[leastStep(head)];
  if (cell) return [{...cell, weight: head.map[cell.query * head.columns + cell.key]}].filter(({weight}) => weight >= 0);
  let links = [];
  if (!token) links = linksInSight(head).filter(({weight}) => weight >= least);
  else {
    const add = (query, key, weight) => {
      if (weight >= 1e-6 && !leftOut(query, key)) links.push({query, key, weight});
    };
    if (oneSentence || token.side === "q")
      head.looks(token.token).slice(0, kStrongest).forEach((link) => add(token.token, link.token, link.weight));
    if (oneSentence || token.side === "k")
      head.lookers(token.token).slice(0, kStrongest).forEach((link) => add(link.token, token.token, link.weight));
  }
  return links.sort((a, b) => a.weight - b.weight).slice(-4000);
}

function drawSentence(head) {
  const box = element("links"), height = box.clientHeight, canvas = element("lines"), token = tokenShown();
  element("stage").style.height = `${height}px`;
  drawTokens();
  const width = canvas.clientWidth, context = cleared(canvas, width, height);
  const step = head ? leastStep(head) : Math.max(state.least, 0), links = head ? linksShown(head) : [];
  element("least").value = step;
  say(element("least-shown"), String(kLeast[step]));
  set(element("least"), "aria-valuetext", kLeast[step]);
  say(element("no-links"), head && !links.length && !linkShown() && !token ? "no link of this weight in sight" : "");
  say(element("sentence-title"), `The sentence${timesNorms()}`);
  const out = themed("--out"), back = themed("--back");
  const fromQuery = scrolled("q"), fromKey = scrolled("k"), most = links.length ? links[links.length - 1].weight || 1 : 1;
  for (const {query, key, weight} of links) {
    const left = (query + 0.5) * kLine - fromQuery, right = (key + 0.5) * kLine - fromKey;
    context.strokeStyle = token && oneSentence && !linkShown() && query !== token.token ? back : out;
    context.globalAlpha = 0.08 + 0.92 * Math.sqrt(weight / most);
    context.lineWidth = 0.5 + 6 * weight;
    context.beginPath();
    context.moveTo(0, left);
    context.bezierCurveTo(width * 0.45, left, width * 0.55, right, width, right);
    context.stroke();
  }
}

// A list of links; a click chooses their other end.
function strongestOf(title, links, side) {
  const part = make("div"), rows = make("ol"), {tokens} = lists[side];
  for (const {token, weight} of links.filter((link) => link.weight > 0).slice(0, 6)) {
    const row = make("li"), button = make("button"), bar = make("span", undefined, "bar");
    button.type = "button";
    bar.style.width = `${100 * Math.min(weight, 1)}%`;
    button.append(bar, make("bdi", readable(tokens[token])), make("span", ` ${token}`, "quiet"),
      make("span", digits(weight), "number"));
    button.addEventListener("click", () => {
      choose({side, token, cell: null, hovered: null});
      showToken();
      element("strongest").focus({preventScroll: true});
    });
    row.append(button);
    rows.append(row);
  }
  part.append(make("h3", title), rows.children.length ? rows : make("p", "none", "quiet"));
  return part;
}

const listed = {};  // what #strongest shows

function drawStrongest(head) {
  const token = tokenShown(), {side, token: at} = token || {side: "", token: -1};
  if (listed.head === head && listed.side === side && listed.at === at) return;
  Object.assign(listed, {head, side, at});
  const box = element("strongest");
  say(element("token-title"), `${token ? `Token ${at}` : "Token"}${timesNorms()}`);
  if (!token || !head) {
    box.replaceChildren(make("p", token ? "No data." : "Choose a token in the sentence or on the map to see its strongest links.",
      "quiet"));
    return;
  }
  const parts = [make("p", readable(lists[side].tokens[at]), "name")];
  if (oneSentence || side === "q")
    parts.push(strongestOf(`looks at \u00b7 entropy ${short(head.entropy[at])} nats`, head.looks(at), "k"));
  if (oneSentence || side === "k") {
    const sum = head.received ? ` \u00b7 receives ${short(head.received[at])}` : "";
    const among = meta.full ? "" : meta.top === 1 ? " \u00b7 of each query's largest" : ` \u00b7 of each query's ${meta.top} largest`;
    parts.push(strongestOf(`is looked at by${sum}${among}`, head.lookers(at), "q"));
  }
  box.replaceChildren(...parts);
  box.scrollTop = 0;
}

// SPDX-License-Identifier: Apache-2.0
// How tokens, numbers and weights look: readable names, digits, colours.
"use strict";

const element = (id) => document.getElementById(id);

// Pieces of byte-level vocabularies begin with U+0120 for a space, those of SentencePiece with U+2581.
const byteLevel = keyTokens.concat(meta.q_tokens).filter((text) => text.startsWith("\u0120")).length > 1;
const kSigns = {"\n": "\u21b5", "\r": "\u240d", "\t": "\u21e5"};

// What would not be seen, or would move what stands around it, as a sign or its number.
function readable(text) {
  let shown = text.replace(/^\u2581/, "\u2423");
  if (byteLevel) shown = shown.replace(/\u0120/g, "\u2423").replace(/\u010a/g, "\u21b5").replace(/\u0109/g, "\u21e5");
  if (/^\s+$/.test(shown)) shown = shown.replace(/ /g, "\u2423");
  shown = shown.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (sign) => {
    const code = sign.codePointAt(0);
    if (kSigns[sign]) return kSigns[sign];
    if (code < 32) return String.fromCharCode(0x2400 + code);
    return `[${code.toString(16).toUpperCase().padStart(4, "0")}]`;
  });
  return shown === "" ? "\u2205" : shown;
}

// The model's own tokens, as the page was told; else by their form.
const looksSpecial = (text) => /^(\[[A-Z]+\d*\]|<[a-z_/|][^<> ]*>)$/i.test(text);
const specials = {q: meta.q_special || meta.q_tokens.map(looksSpecial)};
specials.k = oneSentence ? specials.q : meta.kv_special || keyTokens.map(looksSpecial);

// Text that a reader hears or reads in a line of ours.
const cut = (text) => (text.length > 24 ? text.slice(0, 23) + "\u2026" : text);
const quoted = (tokens, i) => `\u2068\u201c${cut(readable(tokens[i]))}\u201d\u2069 (${i})`;

// As many digits as the number is worth: weights with five places.
const digits = (value) => (Number.isNaN(value) ? "no number" : value.toFixed(5));
const short = (value) =>
  value === null || Number.isNaN(value) ? "\u2013" : Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3);

// Viridis (van der Walt and Smith 2015), told apart by all kinds of colour vision, at nine places.
const kViridis = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129],
  [92, 200, 99], [170, 220, 50], [253, 231, 37]];
const kNoNumber = [128, 128, 128];

function colour(share) {
  if (Number.isNaN(share)) return kNoNumber;
  const place = Math.min(Math.max(share, 0), 1) * 8, low = Math.min(Math.floor(place), 7);
  return kViridis[low].map((from, c) => Math.round(from + (kViridis[low + 1][c] - from) * (place - low)));
}

const counted = (count, one) => `${count} ${one}${count === 1 ? "" : "s"}`;

const css = (rgb) => `rgb(${rgb.join(" ")})`;
const isLight = (rgb) => rgb[0] * 0.3 + rgb[1] * 0.59 + rgb[2] * 0.11 > 105;

// A canvas as sharp as the screen, cleared; its context counts in CSS pixels.
function cleared(canvas, width, height) {
  const sharp = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * sharp);
  canvas.height = Math.round(height * sharp);
  const context = canvas.getContext("2d");
  context.setTransform(sharp, 0, 0, sharp, 0, 0);
  return context;
}

function drawScale(canvas, shareOf) {
  const context = cleared(canvas, 128, 10);
  for (let x = 0; x < 128; ++x) {
    context.fillStyle = css(colour(shareOf(x / 127)));
    context.fillRect(x, 0, 1.5, 10);
  }
}

const themed = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);

// Writes what is another than before: what is written anew moves the pointer's target and is read aloud again.
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
function set(node, name, value) {
  if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

function make(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// SPDX-License-Identifier: Apache-2.0
// The data of the page: JSON about all heads, and a block of bytes for each head, read when it is asked for.
"use strict";

const meta = JSON.parse(document.getElementById("meta").textContent);
const keyTokens = meta.kv_tokens || meta.q_tokens;
const oneSentence = !meta.kv_tokens;
const kSteps = 65534;  // sixteen bits; 65535 stands for what is no number

async function unpack(id) {
  const text = atob(document.getElementById(id).textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; ++i) bytes[i] = text.charCodeAt(i);
  if (!meta.compressed) return bytes;
  if (typeof DecompressionStream === "undefined")
    throw new Error("this browser has no DecompressionStream, which browsers have since May 2023");
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Reads sections one after the other: of each number its highest byte first, all numbers' highest bytes together.
class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }
  done() {
    if (this.at !== this.bytes.length)
      throw new Error(`there are ${this.bytes.length} bytes where ${this.at} are needed`);
  }
  float() {
    this.at += 4;
    if (this.at > this.bytes.length) throw new Error(`there are ${this.bytes.length} bytes, which are too few`);
    return new DataView(this.bytes.buffer, this.bytes.byteOffset).getFloat32(this.at - 4, true);
  }
  integers(count, width) {
    const values = new Uint32Array(count);
    for (let byte = 0; byte < width; ++byte)
      for (let i = 0; i < count; ++i) values[i] = values[i] * 256 + this.bytes[this.at++];
    return values;
  }
  linear(count, most) {
    return Float32Array.from(this.integers(count, 2), (q) => (q > kSteps ? NaN : (q / kSteps) * most));
  }
  roots(count, most) {
    return Float32Array.from(this.integers(count, 2), (q) => (q > kSteps ? NaN : (q / kSteps) ** 2 * most));
  }
}

const largest = (values) => values.reduce((most, value) => (value > most ? value : most), 0);
// Links that have a number, the strongest first.
const byWeight = (links) => links.filter(({weight}) => weight >= 0).sort((a, b) => b.weight - a.weight || a.token - b.token);

// All weights of a head, and what follows from them. A row without numbers gives nothing to what keys receive.
class FullHead {
  constructor(map) {
    this.rows = meta.q_len;
    this.columns = meta.kv_len;
    this.bin = 1;
    this.map = map;
    this.most = largest(map);
    this.entropy = new Float32Array(this.rows);
    this.received = new Float32Array(this.columns);
    for (let i = 0, at = 0; i < this.rows; ++i)
      for (let j = 0; j < this.columns; ++j, ++at) {
        const weight = map[at];
        if (weight > 0) {
          this.entropy[i] -= weight * Math.log(weight);
          this.received[j] += weight;
        } else if (weight !== 0) this.entropy[i] = NaN;
      }
  }
  // norms: one a key. Products as shares of their rows.
  times(norms) {
    const map = new Float32Array(this.map.length);
    for (let i = 0; i < this.rows; ++i) {
      const row = this.map.subarray(i * this.columns, (i + 1) * this.columns);
      const sum = row.reduce((sum, weight, j) => sum + weight * norms[j], 0);
      row.forEach((weight, j) => (map[i * this.columns + j] = sum === 0 ? 0 : (weight * norms[j]) / sum));
    }
    return new FullHead(map);
  }
  weight(i, j) {
    return this.map[i * this.columns + j];
  }
  // The keys of query i and the queries of key j, {token, weight}.
  looks(i) {
    const found = [];
    for (let j = 0; j < this.columns; ++j) found.push({token: j, weight: this.weight(i, j)});
    return byWeight(found);
  }
  lookers(j) {
    const found = [];
    for (let i = 0; i < this.rows; ++i) found.push({token: i, weight: this.weight(i, j)});
    return byWeight(found);
  }
}

// Of a long text a map of means, and each query's strongest keys.
class PooledHead {
  constructor(reader) {
    const entropy = reader.float(), received = reader.float();
    [this.rows, this.columns] = meta.map;
    this.bin = meta.bin;
    this.entropy = reader.linear(meta.q_len, entropy);
    this.received = meta.received ? reader.roots(meta.kv_len, received) : null;
    this.map = reader.roots(this.rows * this.columns, 1);
    this.most = largest(this.map);
    this.keys = reader.integers(meta.q_len * meta.top, meta.key_bytes);
    this.weights = reader.roots(meta.q_len * meta.top, 1);
  }
  weight(i, j) {
    const found = this.looks(i).find((link) => link.token === j);
    return found ? found.weight : undefined;
  }
  looks(i) {
    const found = [];
    for (let at = i * meta.top; at < (i + 1) * meta.top; ++at)
      if (this.keys[at] < meta.kv_len) found.push({token: this.keys[at], weight: this.weights[at]});
    return byWeight(found);
  }
  lookers(j) {
    const found = [];
    this.keys.forEach((key, at) => {
      if (key === j) found.push({token: Math.floor(at / meta.top), weight: this.weights[at]});
    });
    return byWeight(found);
  }
}

const unpacked = new Map();  // the heads looked at last

async function decoded(layer, head, norm) {
  const reader = new Reader(await unpack(`${norm ? "n" : "p"}${layer}.${head}`));
  let made;
  if (!meta.full) made = new PooledHead(reader);
  else if (!norm) made = new FullHead(reader.roots(meta.q_len * meta.kv_len, 1));
  else made = (await loadHead(layer, head, false)).times(Float32Array.from({length: meta.kv_len}, () => reader.float()));
  reader.done();
  return made;
}

function loadHead(layer, head, norm) {
  const id = `${norm ? "n" : "p"}${layer}.${head}`;
  if (!unpacked.has(id)) {
    if (unpacked.size > 7) unpacked.delete(unpacked.keys().next().value);
    const reading = decoded(layer, head, norm);
    unpacked.set(id, reading);
    reading.catch(() => unpacked.delete(id));
  }
  return unpacked.get(id);
}

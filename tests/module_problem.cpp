// SPDX-License-Identifier: Apache-2.0
// How layers and calls are drawn, stored and run.
#include "module_problem.hpp"

#include <numeric>

namespace multihead::testing {

std::set<std::string> all_module_tags() {
  return {"in_out",       "out_in",        "separate",     "fused_blocks",
          "fused_groups", "q_bias",        "k_bias",       "v_bias",
          "fused_bias",   "out_bias",      "self",         "cross",
          "kdim",         "vdim",          "grouped",      "head_dim",
          "value_dim",    "out_dim",       "bias_kv",      "zero_attn",
          "both_extras",  "half_split",    "interleaved",  "partial",
          "positions",    "linear",        "llama3",       "norm_rms",
          "norm_plus_1",  "norm_layer",    "norm_weights", "norm_bias",
          "scale",        "batch",         "causal",       "lengths",
          "gates",        "lse",           "heads",        "per_head",
          "mean",         "norm_weighted", "norms",        "extras_and_weights"};
}

template <class T>
ModuleProblem<T>::ModuleProblem(std::uint64_t seed) {
  Random random(seed);
  draw_layer(random);
  draw_heads(random);
  draw_call(random);
  draw_requests(random);
}

template <class T>
void ModuleProblem<T>::draw_layer(Random& random) {
  const auto tag = [&](const char* name, int percent) {
    const bool yes = random.chance(percent);
    if (yes) tags.insert(name);
    return yes;
  };
  e.kv_heads = random.pick<std::int64_t>({1, 2, 3});
  e.heads = e.kv_heads * (tag("grouped", 35) ? random.pick<std::int64_t>({2, 3}) : 1);
  e.head_dim = random.pick<std::int64_t>({2, 4, 6, 8, 10, 12, 16, 18, 32, 40, 64});
  e.value_dim = tag("value_dim", 35) ? random.between(1, 33) : e.head_dim;
  e.model_dim = tag("head_dim", 50) ? random.between(1, 70) : e.heads * e.head_dim;
  fused = random.chance(45);
  self = !tag("cross", fused ? 30 : 60);
  if (self) tags.insert("self");
  e.kdim = e.vdim = e.model_dim;
  if (!self && !fused && tag("kdim", 60)) e.kdim = random.between(1, 60);
  if (!self && !fused && tag("vdim", 60)) e.vdim = random.between(1, 60);
  e.out_dim = tag("out_dim", 40) ? random.between(1, 100) : e.model_dim;
  spec.heads = e.heads;
  if (e.kv_heads != e.heads) spec.kv_heads = e.kv_heads;
  spec.order = random.chance(50) ? WeightOrder::in_out : WeightOrder::out_in;
  tags.insert(*spec.order == WeightOrder::in_out ? "in_out" : "out_in");
  spec.fused_order = random.chance(50) ? FusedOrder::blocks : FusedOrder::groups;
  tags.insert(!fused ? "separate" : spec.fused_order == FusedOrder::blocks ? "fused_blocks" : "fused_groups");
  if (fused && e.value_dim != e.head_dim) spec.value_dim = e.value_dim;

  const std::int64_t queries = e.heads * e.head_dim, keys = e.kv_heads * e.head_dim, values = e.kv_heads * e.value_dim;
  const auto weight = [&](std::int64_t in, std::int64_t width) {
    return Values<T>::normal(random, in * width, 1 / std::sqrt(static_cast<double>(in)));
  };
  q = weight(e.model_dim, queries), k = weight(e.kdim, keys), v = weight(e.vdim, values);
  out = weight(e.heads * e.value_dim, e.out_dim);
  const auto bias = [&](const char* name, std::int64_t count, int percent) {
    return tag(name, percent) ? Values<T>::normal(random, count, 0.5) : Values<T>();
  };
  fused_bias = tag("fused_bias", 30);
  const int percent = fused_bias ? 0 : 40;
  q_bias = bias("q_bias", queries, percent), k_bias = bias("k_bias", keys, percent);
  v_bias = bias("v_bias", values, percent), out_bias = bias("out_bias", e.out_dim, 40);
  if (fused_bias) {
    q_bias = Values<T>::normal(random, queries, 0.5), k_bias = Values<T>::normal(random, keys, 0.5);
    v_bias = Values<T>::normal(random, values, 0.5);
  }
  bias_k = bias("bias_kv", keys, 35);
  if (!bias_k.all.empty()) bias_v = Values<T>::normal(random, values, 1);
  spec.add_zero_attn = tag("zero_attn", 35);
  e.extra_keys = (bias_k.all.empty() ? 0 : 1) + (spec.add_zero_attn ? 1 : 0);
  if (e.extra_keys == 2) tags.insert("both_extras");
}

template <class T>
void ModuleProblem<T>::draw_heads(Random& random) {
  const auto norm = [&](HeadNorm& of, Values<T>& weight, Values<T>& bias) {
    using Kind = HeadNorm::Kind;
    of.kind = random.pick({Kind::none, Kind::none, Kind::rms, Kind::rms_plus_1, Kind::layer});
    if (of.kind == Kind::none) return;
    tags.insert(of.kind == Kind::rms ? "norm_rms" : of.kind == Kind::layer ? "norm_layer" : "norm_plus_1");
    of.eps = random.pick({1e-6, 1e-5, 1e-2});
    if (random.chance(80)) {
      weight = Values<T>::normal(random, e.head_dim, 0.3), tags.insert("norm_weights");
      for (T& x : weight.all) x = T(static_cast<Sum<T>>(x) + (of.kind == Kind::rms_plus_1 ? 0 : 1));
    }
    if (of.kind == Kind::layer && random.chance(50))
      bias = Values<T>::normal(random, e.head_dim, 0.3), tags.insert("norm_bias");
  };
  norm(spec.q_norm, q_norm, q_norm_bias);
  norm(spec.k_norm, k_norm, k_norm_bias);
  if (random.chance(25)) spec.scale = random.pick({0.25, 1.0, -0.5}), tags.insert("scale");
  if (!random.chance(50)) return;
  RotaryOptions rotary;
  rotary.pairing = random.chance(50) ? RotaryPairing::half_split : RotaryPairing::interleaved;
  tags.insert(rotary.pairing == RotaryPairing::half_split ? "half_split" : "interleaved");
  if (e.head_dim > 2 && random.chance(40)) rotary.rotary_dim = e.head_dim / 4 * 2, tags.insert("partial");
  rotary.theta = random.pick({10000.0, 500000.0, 100.0});
  const int scaling = static_cast<int>(random.between(1, 3));
  if (scaling == 2) rotary.scaling = {.type = "linear", .factor = 2.5}, tags.insert("linear");
  if (scaling == 3)
    rotary.scaling = {.type = "llama3",
                      .factor = 8,
                      .low_freq_factor = 1,
                      .high_freq_factor = 4,
                      .original_max_position_embeddings = 64},
    tags.insert("llama3");
  spec.rotary = rotary;
  spec.max_positions = 300;
}

template <class T>
void ModuleProblem<T>::draw_call(Random& random) {
  batch = random.pick<std::int64_t>({1, 1, 2, 3});
  if (batch > 1) tags.insert("batch");
  q_len = random.pick<std::int64_t>({1, 2, 5, 17, 49, 60});
  kv_len = self ? q_len : random.pick<std::int64_t>({0, 1, 3, 16, 33, 130});
  query.fill(random, {batch, q_len, e.model_dim});
  key.fill(random, {batch, kv_len, e.kdim});
  value.fill(random, {batch, kv_len, e.vdim});
  AttentionOptions& attention = options.attention;
  if (random.chance(40)) {
    tags.insert("causal");
    attention.causal = true;
    attention.alignment = random.chance(50) ? Alignment::top_left() : Alignment::bottom_right();
  }
  if (random.chance(35)) {
    tags.insert("lengths");
    for (std::int64_t b = 0; b < batch; ++b) lengths.push_back(random.between(0, kv_len));
    attention.lengths = lengths;
  }
  if (random.chance(40)) {
    tags.insert("gates");
    for (std::int64_t h = 0; h < e.heads; ++h) gates.push_back(random.normal());
    options.gates = gates;
  }
  const bool moved = attention.alignment.kind() == Alignment::Kind::bottom_right && !lengths.empty();
  if (spec.rotary && (q_len != kv_len || moved || random.chance(50))) {
    tags.insert("positions");
    for (std::int64_t i = 0; i < batch * q_len; ++i) q_positions.push_back(random.between(0, spec.max_positions - 1));
    for (std::int64_t i = 0; i < batch * kv_len; ++i) k_positions.push_back(random.between(0, spec.max_positions - 1));
    k_positions.resize(std::max<std::size_t>(k_positions.size(), 1));  // so that it has an address
    options.q_positions = {q_positions.data(), {batch, q_len}};
    options.k_positions = {k_positions.data(), {batch, kv_len}};
  }
}

template <class T>
void ModuleProblem<T>::draw_requests(Random& random) {
  const auto tag = [&](const char* name, int percent) {
    const bool yes = random.chance(percent);
    if (yes) tags.insert(name);
    return yes;
  };
  asks_lse = tag("lse", 50), asks_heads = tag("heads", 50);
  asks_per_head = tag("per_head", 40), asks_mean = tag("mean", 40), asks_norm_weighted = tag("norm_weighted", 40);
  asks_norms = tag("norms", 40);
  if ((asks_per_head || asks_mean || asks_norm_weighted) && e.extra_keys > 0) tags.insert("extras_and_weights");
}

// A matrix as the layer is given it: in the spec's order.
template <class T>
MatrixView<const T> ModuleProblem<T>::store(const std::string& name, const std::vector<T>& in_out, std::int64_t in) {
  const auto width = static_cast<std::int64_t>(in_out.size()) / in;
  std::vector<T>& memory = stored[name] = in_out;
  if (*spec.order == WeightOrder::in_out) return {memory.data(), {in, width}};
  for (std::int64_t i = 0; i < in; ++i)
    for (std::int64_t o = 0; o < width; ++o)
      memory[static_cast<std::size_t>(o * in + i)] = in_out[static_cast<std::size_t>(i * width + o)];
  return {memory.data(), {width, in}};
}

// Outputs of q, k and v in the order of a fused weight: (part, column) of each.
template <class T>
std::vector<std::pair<int, std::int64_t>> fused_columns(const ModuleProblem<T>& p, FusedOrder order) {
  const MultiHeadExtents& e = p.e;
  std::vector<std::pair<int, std::int64_t>> columns;
  const auto add = [&](int part, std::int64_t first, std::int64_t count) {
    for (std::int64_t c = first; c < first + count; ++c) columns.emplace_back(part, c);
  };
  if (order == FusedOrder::blocks) {
    add(0, 0, e.heads * e.head_dim), add(1, 0, e.kv_heads * e.head_dim), add(2, 0, e.kv_heads * e.value_dim);
    return columns;
  }
  const std::int64_t own = e.heads / e.kv_heads * e.head_dim;
  for (std::int64_t g = 0; g < e.kv_heads; ++g)
    add(0, g * own, own), add(1, g * e.head_dim, e.head_dim), add(2, g * e.value_dim, e.value_dim);
  return columns;
}

template <class T>
MultiHeadWeights<T> ModuleProblem<T>::weights() {
  MultiHeadWeights<T> w;
  const Values<T>* parts[] = {&q, &k, &v};
  const Values<T>* biases[] = {&q_bias, &k_bias, &v_bias};
  if (fused) {
    const auto columns = fused_columns(*this, spec.fused_order);
    std::vector<T> all;
    for (std::int64_t i = 0; i < e.model_dim; ++i)
      for (const auto& [part, column] : columns) {
        const std::vector<T>& from = parts[part]->all;
        const auto width = static_cast<std::int64_t>(from.size()) / e.model_dim;
        all.push_back(from[static_cast<std::size_t>(i * width + column)]);
      }
    w.qkv = store("qkv", all, e.model_dim);
  } else {
    w.q = store("q", q.all, e.model_dim), w.k = store("k", k.all, e.kdim), w.v = store("v", v.all, e.vdim);
  }
  w.out = store("out", out.all, e.heads * e.value_dim);
  const auto copy = [&](const char* name, const Values<T>& values) -> std::span<const T> {
    return stored[name] = values.all;
  };
  if (fused_bias) {
    std::vector<T>& all = stored["qkv_bias"];
    all.clear();
    for (const auto& [part, column] : fused_columns(*this, fused ? spec.fused_order : FusedOrder::blocks))
      all.push_back(biases[part]->all[static_cast<std::size_t>(column)]);
    w.qkv_bias = all;
  } else {
    w.q_bias = copy("q_bias", q_bias), w.k_bias = copy("k_bias", k_bias), w.v_bias = copy("v_bias", v_bias);
  }
  w.out_bias = copy("out_bias", out_bias), w.bias_k = copy("bias_k", bias_k), w.bias_v = copy("bias_v", bias_v);
  w.q_norm = copy("q_norm", q_norm), w.k_norm = copy("k_norm", k_norm);
  w.q_norm_bias = copy("q_norm_bias", q_norm_bias), w.k_norm_bias = copy("k_norm_bias", k_norm_bias);
  return w;
}

template <class T>
std::string ModuleProblem<T>::describe() const {
  std::string text = "batch " + std::to_string(batch) + " q_len " + std::to_string(q_len) + " kv_len " +
                     std::to_string(kv_len) + " model_dim " + std::to_string(e.model_dim) + " heads " +
                     std::to_string(e.heads) + "/" + std::to_string(e.kv_heads) + " head_dim " +
                     std::to_string(e.head_dim) + " value_dim " + std::to_string(e.value_dim);
  for (const std::string& tag : tags) text += " " + tag;
  return text;
}

template <class T>
View3<T> ModuleResults<T>::output_view(const ModuleProblem<T>& p) {
  output.assign(static_cast<std::size_t>(p.batch * p.q_len * p.e.out_dim), T(77));
  return {output.data(), {p.batch, p.q_len, p.e.out_dim}};
}

template <class T>
MultiHeadRequests<T> ModuleResults<T>::requests(const ModuleProblem<T>& p) {
  MultiHeadRequests<T> asked;
  const std::int64_t keys = p.kv_len + p.e.extra_keys;
  const auto room = [](std::vector<S>& memory, std::int64_t count) {
    memory.assign(static_cast<std::size_t>(count), S(77));
    return memory.data();
  };
  if (p.asks_lse) asked.lse = {room(lse, p.batch * p.e.heads * p.q_len), {p.batch, p.e.heads, p.q_len}};
  if (p.asks_heads)
    asked.heads = {room(heads, p.batch * p.e.heads * p.q_len * p.e.value_dim),
                   {p.batch, p.e.heads, p.q_len, p.e.value_dim}};
  if (p.asks_per_head)
    asked.weights.per_head = {room(per_head, p.batch * p.e.heads * p.q_len * keys),
                              {p.batch, p.e.heads, p.q_len, keys}};
  if (p.asks_mean) asked.weights.mean = {room(mean, p.batch * p.q_len * keys), {p.batch, p.q_len, keys}};
  if (p.asks_norm_weighted)
    asked.weights.norm_weighted = {room(norm_weighted, p.batch * p.q_len * keys), {p.batch, p.q_len, keys}};
  if (p.asks_norms) asked.norms = {room(norms, p.batch * p.e.heads * keys), {p.batch, p.e.heads, keys}};
  return asked;
}

template <class T>
void ModuleResults<T>::run(const MultiHeadAttention<T>& layer, const ModuleProblem<T>& p,
                           const MultiHeadOptions& options, bool asks) {
  const View3<T> to = output_view(p);
  layer.forward(p.query.view, p.keys(), p.values(), to, options, asks ? requests(p) : MultiHeadRequests<T>{});
}

template struct ModuleProblem<float>;
template struct ModuleProblem<double>;
template struct ModuleProblem<BFloat16>;
template struct ModuleProblem<Float16>;
template struct ModuleResults<float>;
template struct ModuleResults<double>;
template struct ModuleResults<BFloat16>;
template struct ModuleResults<Float16>;

}  // namespace multihead::testing

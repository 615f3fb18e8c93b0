// SPDX-License-Identifier: Apache-2.0
// The definition of a MultiHeadAttention's call, dense and plain, in numbers that carry their error bounds.
#include "module_problem.hpp"

namespace multihead::testing {

namespace {

using Terms = std::vector<Tracked>;

// One input row through a projection's columns [first, first + count).
template <class T>
Terms project(View3<const T> x, std::int64_t b, std::int64_t i, const Values<T>& w, const Values<T>& bias,
              std::pair<std::int64_t, std::int64_t> range) {
  const std::int64_t in = x.extent(2), width = static_cast<std::int64_t>(w.all.size()) / in;
  Terms row;
  for (std::int64_t c = range.first; c < range.first + range.second; ++c) {
    Terms terms;
    for (std::int64_t m = 0; m < in; ++m)
      terms.push_back(Tracked(static_cast<long double>(static_cast<Sum<T>>(x(b, i, m)))) * Tracked(w[m * width + c]));
    Tracked y = total(terms);
    if (!bias.all.empty()) y = y + Tracked(bias[c]);
    row.push_back(y);
  }
  return row;
}

template <class T>
void normalise(Terms& x, const HeadNorm& norm, const Values<T>& weight, const Values<T>& bias) {
  using Kind = HeadNorm::Kind;
  if (norm.kind == Kind::none) return;
  const Tracked count(static_cast<long double>(x.size()));
  const Tracked mean = norm.kind == Kind::layer ? total(x) / count : Tracked(0);
  Terms squares;
  for (Tracked& value : x) {
    if (norm.kind == Kind::layer) value = value - mean;
    squares.push_back(value * value);
  }
  // eps as the layer keeps it: rounded to the type of the sums.
  const Tracked factor = Tracked(1) / square_root(total(squares) / count +
                                                  Tracked(static_cast<long double>(static_cast<Sum<T>>(norm.eps))));
  for (std::size_t c = 0; c < x.size(); ++c) {
    const auto at = static_cast<std::int64_t>(c);
    x[c] = x[c] * factor;
    if (!weight.all.empty())
      x[c] = x[c] * (norm.kind == Kind::rms_plus_1 ? Tracked(1) + Tracked(weight[at]) : Tracked(weight[at]));
    if (!bias.all.empty()) x[c] = x[c] + Tracked(bias[at]);
  }
}

long double frequency(const RotaryOptions& o, std::int64_t t, std::int64_t rotary_dim) {
  const RotaryScaling& s = o.scaling;
  const long double f = std::pow(static_cast<long double>(o.theta),
                                 -2.0L * static_cast<long double>(t) / static_cast<long double>(rotary_dim));
  if (s.type == "default") return f;
  if (s.type == "linear") return f / s.factor;
  const long double original = static_cast<long double>(s.original_max_position_embeddings);
  const long double wave = 2 * std::acos(-1.0L) / f;
  if (wave < original / s.high_freq_factor) return f;
  if (wave > original / s.low_freq_factor) return f / s.factor;
  const long double share = (original / wave - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
  return (1 - share) * f / s.factor + share * f;
}

void turn(Terms& x, const RotaryOptions& o, std::int64_t position) {
  const auto width = o.rotary_dim.value_or(static_cast<std::int64_t>(x.size()));
  for (std::int64_t t = 0; t < width / 2; ++t) {
    const bool split = o.pairing == RotaryPairing::half_split;
    Tracked& a = x[static_cast<std::size_t>(split ? t : 2 * t)];
    Tracked& b = x[static_cast<std::size_t>(split ? t + width / 2 : 2 * t + 1)];
    // The angle is made of float64 numbers, within 8 roundings for a scaled frequency; the tables are rounded once.
    const long double angle = static_cast<long double>(position) * frequency(o, t, width);
    const long double off = angle * 8 * 0x1p-53L;
    const Tracked cos = Tracked::rounded(std::cos(angle), off + 2 * 0x1p-53L);
    const Tracked sin = Tracked::rounded(std::sin(angle), off + 2 * 0x1p-53L);
    const Tracked turned = a * cos - b * sin;
    b = b * cos + a * sin;
    a = turned;
  }
}

template <class T>
void store(Terms& x) {
  for (Tracked& value : x) value = stored<T>(value);
}

template <class T>
struct Heads {
  const ModuleProblem<T>& p;
  bool pairs;
  std::int64_t b, h, kv;
  std::vector<Terms> keys, values;  // the extra ones last

  Heads(const ModuleProblem<T>& problem, bool by_pairs, std::int64_t batch, std::int64_t head)
      : p(problem), pairs(by_pairs), b(batch), h(head), kv(head / (problem.e.heads / problem.e.kv_heads)) {
    const MultiHeadExtents& e = p.e;
    const std::pair key_range{kv * e.head_dim, e.head_dim}, value_range{kv * e.value_dim, e.value_dim};
    for (std::int64_t j = 0; j < p.kv_len; ++j) {
      keys.push_back(project(p.keys(), b, j, p.k, p.k_bias, key_range));
      values.push_back(project(p.values(), b, j, p.v, p.v_bias, value_range));
      normalise(keys.back(), p.spec.k_norm, p.k_norm, p.k_norm_bias);
      if (p.spec.rotary) turn(keys.back(), *p.spec.rotary, position(p.k_positions, j, p.kv_len));
      store<T>(keys.back()), store<T>(values.back());
    }
    if (!p.bias_k.all.empty()) {
      keys.emplace_back(), values.emplace_back();
      for (std::int64_t c = 0; c < e.head_dim; ++c) keys.back().push_back(Tracked(p.bias_k[key_range.first + c]));
      for (std::int64_t c = 0; c < e.value_dim; ++c) values.back().push_back(Tracked(p.bias_v[value_range.first + c]));
    }
    if (p.spec.add_zero_attn) keys.emplace_back(e.head_dim), values.emplace_back(e.value_dim);
  }

  std::int64_t position(const std::vector<std::int64_t>& positions, std::int64_t i, std::int64_t length) const {
    return p.q_positions.empty() ? i : positions[static_cast<std::size_t>(b * length + i)];
  }

  bool sees(std::int64_t i, std::int64_t j) const {
    const AttentionOptions& options = p.options.attention;
    if (j >= p.kv_len) return true;  // the extra keys
    const std::int64_t valid = options.lengths.empty() ? p.kv_len : options.lengths[static_cast<std::size_t>(b)];
    const bool at_end = options.alignment.kind() == Alignment::Kind::bottom_right;
    const std::int64_t offset = at_end ? valid - p.q_len : options.alignment.offset();
    return j < valid && (!options.causal || j <= i + offset);
  }

  // exp(score - largest) of each key of row i, and their sum's logarithm. Blocks of keys, the merge of the extra ones
  // and the change of base cost a few roundings more than the definition.
  Terms weights(std::int64_t i, Tracked& lse) const {
    constexpr long double kExtraRoundings = 12;
    Terms q = project(p.query.view, b, i, p.q, p.q_bias, {h * p.e.head_dim, p.e.head_dim});
    normalise(q, p.spec.q_norm, p.q_norm, p.q_norm_bias);
    if (p.spec.rotary) turn(q, *p.spec.rotary, position(p.q_positions, i, p.q_len));
    store<T>(q);
    const long double scale = p.spec.scale.value_or(1 / std::sqrt(static_cast<double>(p.e.head_dim)));
    Terms scores(keys.size());
    long double largest = -std::numeric_limits<long double>::infinity(), widest = 0;
    for (std::size_t j = 0; j < keys.size(); ++j) {
      if (!sees(i, static_cast<std::int64_t>(j))) continue;
      Terms terms;
      for (std::size_t c = 0; c < q.size(); ++c) terms.push_back(q[c] * keys[j][c]);
      scores[j] = total(terms) * Tracked(scale, Tracked::unit * 2 * std::fabs(scale));
      largest = std::max(largest, scores[j].value);
      widest = std::max(widest, std::fabs(scores[j].value));
    }
    Terms w(keys.size());
    for (std::size_t j = 0; j < keys.size(); ++j) {
      if (!sees(i, static_cast<std::int64_t>(j))) continue;
      const long double x = std::exp(scores[j].value - largest);
      // Differences of scores in units of log 2, of the parts that are merged, and lse where it stands between.
      const long double off = scores[j].error + Tracked::unit * (kExtraRoundings + 6 * widest);
      w[j] = {x, x * std::expm1(off)};
    }
    const Tracked sum = total(w);
    lse = {largest + std::log(sum.value),
           sum.error / sum.value + Tracked::unit * (kExtraRoundings + 6 * widest + std::fabs(std::log(sum.value)))};
    if (sum.value == 0) lse = {-std::numeric_limits<long double>::infinity(), 0};
    for (Tracked& weight : w) weight = sum.value == 0 ? Tracked(0) : weight / sum;
    return w;
  }

  // Element c of the keys [first, last) alone, as attention() gives it, and their share of the weights.
  Tracked part(const Terms& w, std::int64_t c, std::int64_t first, std::int64_t last, Tracked& share) const {
    Terms own, terms;
    for (std::int64_t j = first; j < last; ++j) own.push_back(w[static_cast<std::size_t>(j)]);
    share = total(own);
    if (share.value == 0) return {0};
    for (std::int64_t j = first; j < last; ++j) {
      const auto at = static_cast<std::size_t>(j);
      terms.push_back(w[at] / share * values[at][static_cast<std::size_t>(c)]);
    }
    Tracked x = total(terms);
    long double wobble = 0;
    for (std::int64_t j = first; j < last && pairs; ++j) {
      const auto at = static_cast<std::size_t>(j);
      const Tracked v = values[at][static_cast<std::size_t>(c)];
      wobble += (w[at].value + w[at].error) / share.value * (std::fabs(v.value - x.value) + v.error + x.error) / 256;
    }
    return stored<T>({x.value, x.error + wobble});
  }

  // The output of row i's weights before gates. The two parts of a layer with extra keys are stored before they meet.
  Tracked out(const Terms& w, std::int64_t c) const {
    const auto all = static_cast<std::int64_t>(w.size());
    if constexpr (sizeof(T) == 2) {
      Tracked share, extra_share;
      const Tracked own = part(w, c, 0, p.kv_len, share);
      if (p.kv_len == all) return own;
      const Tracked extra = part(w, c, p.kv_len, all, extra_share);
      return stored<T>(own * share + extra * extra_share);
    } else {
      Terms terms;
      for (std::size_t j = 0; j < w.size(); ++j) terms.push_back(w[j] * values[j][static_cast<std::size_t>(c)]);
      return total(terms);
    }
  }

  // |gate| times the length of each value after the head's rows of the out weight.
  Terms lengths() const {
    Terms all;
    for (const Terms& value : values) {
      Terms squares;
      for (std::int64_t o = 0; o < p.e.out_dim; ++o) {
        Terms terms;
        for (std::int64_t c = 0; c < p.e.value_dim; ++c)
          terms.push_back(value[static_cast<std::size_t>(c)] *
                          Tracked(p.out[(h * p.e.value_dim + c) * p.e.out_dim + o]));
        const Tracked y = total(terms);
        squares.push_back(y * y);
      }
      all.push_back(square_root(total(squares)) * absolute(gate()));
    }
    return all;
  }
  Tracked gate() const {
    if (p.gates.empty()) return {1};
    const long double value = p.gates[static_cast<std::size_t>(h)];
    return Tracked::rounded(value, 0);
  }
};

}  // namespace

template <class T>
ModuleTruth::ModuleTruth(const ModuleProblem<T>& p, bool pairs) {
  Tracked::unit = static_cast<long double>(std::numeric_limits<Sum<T>>::epsilon()) / 2;
  const MultiHeadExtents& e = p.e;
  const std::int64_t n = p.kv_len + e.extra_keys;
  const auto size = [](std::int64_t count) { return static_cast<std::size_t>(count); };
  std::vector<Terms> mean_terms(size(p.batch * p.q_len * n)), length_terms = mean_terms;
  std::vector<Terms> concat(size(p.batch * p.q_len));
  for (std::int64_t b = 0; b < p.batch; ++b)
    for (std::int64_t h = 0; h < e.heads; ++h) {
      const Heads<T> head(p, pairs, b, h);
      const Terms lengths = p.asks_norm_weighted || p.asks_norms ? head.lengths() : Terms(size(n));
      norms.insert(norms.end(), lengths.begin(), lengths.end());
      for (std::int64_t i = 0; i < p.q_len; ++i) {
        Tracked row_lse;
        const Terms w = head.weights(i, row_lse);
        lse.push_back(row_lse);
        for (std::int64_t j = 0; j < n; ++j) {
          per_head.push_back(w[size(j)]);
          mean_terms[size((b * p.q_len + i) * n + j)].push_back(w[size(j)] /
                                                                Tracked(static_cast<long double>(e.heads)));
          length_terms[size((b * p.q_len + i) * n + j)].push_back(w[size(j)] * lengths[size(j)]);
        }
        for (std::int64_t c = 0; c < e.value_dim; ++c) {
          heads.push_back(head.out(w, c));
          concat[size(b * p.q_len + i)].push_back(p.gates.empty() ? heads.back()
                                                                  : stored<T>(heads.back() * head.gate()));
        }
      }
    }
  for (const Terms& row : concat)
    for (std::int64_t o = 0; o < e.out_dim; ++o) {
      Terms terms;
      for (std::size_t c = 0; c < row.size(); ++c)
        terms.push_back(row[c] * Tracked(p.out[static_cast<std::int64_t>(c) * e.out_dim + o]));
      const Tracked y = total(terms);
      output.push_back(stored<T>(p.out_bias.all.empty() ? y : y + Tracked(p.out_bias[o])));
    }
  for (const Terms& terms : mean_terms) mean.push_back(total(terms));
  for (const Terms& terms : length_terms) norm_weighted.push_back(total(terms));
}

template ModuleTruth::ModuleTruth(const ModuleProblem<float>&, bool);
template ModuleTruth::ModuleTruth(const ModuleProblem<double>&, bool);
template ModuleTruth::ModuleTruth(const ModuleProblem<BFloat16>&, bool);
template ModuleTruth::ModuleTruth(const ModuleProblem<Float16>&, bool);

}  // namespace multihead::testing

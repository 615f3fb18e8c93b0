// SPDX-License-Identifier: Apache-2.0
// multihead_compare_bench THREADS: our side of compare.py. Lines on standard input:
//
//   prepare FOLDER RESULT NAME KIND TYPE BATCH HEADS KV_HEADS LENGTH HEAD_DIM CAUSAL LEFT RIGHT ROWS INNER COLUMNS
//   SIDE_BY_SIDE QUERIES
//              reads the operands from FOLDER, computes once, writes them to FOLDER/RESULT.npy; says "ready" or
//              "cannot" and why
//   run N      computes N times into the same outputs; says the seconds of one, of the processor with one thread
//   rates NAME ...
//              measures ceilings now, in as many threads at once, 0.05 s a loop; says the sum of the threads' mean
//              rates of each
//
// Operands are float32 or float64 as NumPy writes them, and converted here, before anything is timed.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <ctime>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <numeric>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "ceilings.hpp"
#include "multihead/attention_backward.hpp"
#include "multihead/io.hpp"
#include "multihead/kv_cache.hpp"
#include "multihead/multihead.hpp"
#include "timed.hpp"

namespace {

using namespace multihead;

// As problems.py has it.
struct Problem {
  std::filesystem::path folder;
  std::string result, name, kind, type;
  std::int64_t batch, heads, kv_heads, length, head_dim, causal, left, right, rows, inner, columns, side_by_side,
      queries;
};

using Call = std::function<void()>;

template <class T>
std::vector<T> operand(const Problem& problem, const char* name) {
  const Array array = read_npy(problem.folder / (std::string(name) + ".npy"));
  std::vector<T> values;
  if constexpr (sizeof(T) == 8) {
    const std::span<const double> given = array.values<double>();
    values.assign(given.begin(), given.end());
  } else {
    for (float x : array.values<float>()) values.push_back(T(x));
  }
  return values;
}

// The results one after the other.
template <class T>
void write(const Problem& problem, const std::vector<std::vector<T>*>& results) {
  std::vector<Sum<T>> all;
  for (const std::vector<T>* result : results)
    for (T x : *result) all.push_back(static_cast<Sum<T>>(x));
  const std::int64_t shape[1] = {static_cast<std::int64_t>(all.size())};
  write_npy(problem.folder / (problem.result + ".npy"), std::span<const Sum<T>>(all), shape);
}

// A list or matrix of the problem, where its folder holds one.
template <class T>
std::vector<T> given(const Problem& problem, const char* name) {
  const std::filesystem::path file = problem.folder / (std::string(name) + ".npy");
  if (!std::filesystem::exists(file)) return {};
  const Array array = read_npy(file);
  const std::span<const T> values = array.values<T>();
  return {values.begin(), values.end()};
}

template <class T>
void copy(const View4<const T>& from, const View4<T>& to) {
  const auto [batch, heads, length, width] = from.extents();
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t h = 0; h < heads; ++h)
      for (std::int64_t i = 0; i < length; ++i) std::copy_n(&from(b, h, i, 0), width, &to(b, h, i, 0));
}

// Everything that a call of attention, or of its backward pass, reads and writes: (batch, heads, length, head_dim) in
// memory, or (batch, length, heads, head_dim) where heads lie side by side.
template <class T>
struct Attention {
  bool side_by_side;
  std::array<std::int64_t, 4> extents, kv_extents;
  std::vector<T> q, k, v, out, d_out, d_q, d_k, d_v;
  std::vector<Sum<T>> lse;
  std::vector<std::int64_t> lengths, bounds;
  std::vector<std::uint8_t> keep;
  std::vector<float> bias;
  AttentionOptions options;

  Attention(const Problem& p, int threads)
      : side_by_side(p.side_by_side != 0),
        extents{p.batch, p.heads, p.queries, p.head_dim},
        kv_extents{p.batch, p.kv_heads, p.length, p.head_dim},
        q(operand<T>(p, "q")),
        k(operand<T>(p, "k")),
        v(operand<T>(p, "v")),
        out(q.size()),
        lengths(given<std::int64_t>(p, "lengths")),
        bounds(given<std::int64_t>(p, "bounds")),
        keep(given<std::uint8_t>(p, "keep")),
        bias(given<float>(p, "bias")) {
    options.threads = threads, options.causal = p.causal != 0;
    options.window.left = p.left;
    if (!options.causal) options.window.right = p.right;
    options.lengths = lengths, options.cu_seqlens_q = options.cu_seqlens_k = bounds;
    if (!keep.empty()) options.keep_mask = View<const std::uint8_t, 2>(keep.data(), {p.length, p.length});
    if (!bias.empty()) options.bias = View<const float, 2>(bias.data(), {p.length, p.length});
    for (std::vector<T>* values : {&q, &k, &v}) {
      const std::vector<T> read = *values;
      copy(View4<const T>(read.data(), extents_of(read)), placed(values->data(), extents_of(read)));
    }
  }
  const std::array<std::int64_t, 4>& extents_of(const std::vector<T>& values) const {
    return values.size() == q.size() ? extents : kv_extents;
  }
  template <class E>
  View4<E> placed(E* data, const std::array<std::int64_t, 4>& e) const {
    const std::int64_t head = side_by_side ? e[3] : e[2] * e[3], row = side_by_side ? e[1] * e[3] : e[3];
    return {data, e, {e[1] * e[2] * e[3], head, row, 1}};
  }
  View4<const T> in(const std::vector<T>& values) const { return placed(values.data(), extents_of(values)); }
  View4<T> view(std::vector<T>& values) const { return placed(values.data(), extents); }
};

template <class T>
Call forward(const Problem& problem, int threads) {
  const auto given = std::make_shared<Attention<T>>(problem, threads);
  const Call call = [given] {
    Attention<T>& x = *given;
    attention(x.in(x.q), x.in(x.k), x.in(x.v), x.view(x.out), x.options);
  };
  call();
  std::vector<T> out(given->out.size());
  copy(given->in(given->out), View4<T>(out.data(), given->extents));
  write<T>(problem, {&out});
  return call;
}

template <class T>
Call backward(const Problem& problem, int threads) {
  const auto given = std::make_shared<Attention<T>>(problem, threads);
  Attention<T>& x = *given;
  x.d_out = operand<T>(problem, "d_out");
  x.d_q.resize(x.q.size()), x.d_k.resize(x.q.size()), x.d_v.resize(x.q.size());
  x.lse.resize(static_cast<std::size_t>(problem.batch * problem.heads * problem.length));
  const View3<Sum<T>> lse(x.lse.data(), {problem.batch, problem.heads, problem.length});
  attention(x.in(x.q), x.in(x.k), x.in(x.v), x.view(x.out), lse, x.options);
  const Call call = [given, lse] {
    Attention<T>& y = *given;
    const AttentionForward<T> before{y.in(y.q), y.in(y.k), y.in(y.v), y.in(y.out), lse, y.in(y.d_out), {}};
    const AttentionGradients<T> gradients{.q = y.view(y.d_q), .k = y.view(y.d_k), .v = y.view(y.d_v)};
    attention_backward(before, gradients, y.options);
  };
  call();
  write<T>(problem, {&x.d_q, &x.d_k, &x.d_v});
  return call;
}

// One query a head over a cache that holds the keys, in one page.
template <class T>
struct Decode {
  std::vector<T> q, out;
  KvCache cache;
  KvSequence sequence;
  AttentionOptions options;

  Decode(const Problem& p, KvStorage storage)
      : q(operand<T>(p, "q")),
        out(q.size()),
        cache({.storage = storage,
               .kv_heads = p.kv_heads,
               .head_dim = p.head_dim,
               .pages = 1,
               .page_len = (p.length + 31) / 32 * 32}),
        sequence(cache.add()) {
    const std::vector<T> k = operand<T>(p, "k"), v = operand<T>(p, "v");
    const std::array<std::int64_t, 4> extents{1, p.kv_heads, p.length, p.head_dim};
    cache.append(0, {&sequence, 1}, View4<const T>(k.data(), extents), View4<const T>(v.data(), extents));
  }
};

template <class T>
Call decode(const Problem& problem, KvStorage storage, int threads) {
  const auto given = std::make_shared<Decode<T>>(problem, storage);
  given->options.threads = threads;
  const std::array<std::int64_t, 4> extents{1, problem.heads, 1, problem.head_dim};
  const Call call = [given, extents] {
    Decode<T>& x = *given;
    attention(View4<const T>(x.q.data(), extents), x.cache, 0, {&x.sequence, 1}, View4<T>(x.out.data(), extents), {},
              x.options);
  };
  call();
  write<T>(problem, {&given->out});
  return call;
}

Call prepare_decode(const Problem& problem, int threads) {
  if (problem.type == "float32") return decode<float>(problem, KvStorage::float32, threads);
  if (problem.type == "bfloat16") return decode<BFloat16>(problem, KvStorage::bfloat16, threads);
  if (problem.type == "float16") return decode<Float16>(problem, KvStorage::float16, threads);
  return decode<float>(problem, KvStorage::int8, threads);
}

// y = GELU(x W + bias), W packed before.
template <class T>
struct Product {
  std::vector<T> x, bias, y;
  Linear<T> linear;
  LayerOptions options;

  explicit Product(const Problem& p)
      : x(operand<T>(p, "x")),
        bias(operand<T>(p, "bias")),
        y(static_cast<std::size_t>(p.rows * p.columns)),
        linear(MatrixView<const T>(operand<T>(p, "weight"), {p.inner, p.columns}), WeightOrder::in_out, bias) {}
};

template <class T>
Call product(const Problem& problem, int threads) {
  const auto given = std::make_shared<Product<T>>(problem);
  given->options.threads = threads;
  const Call call = [given, problem] {
    given->linear.forward(MatrixView<const T>(given->x, {problem.rows, problem.inner}),
                          MatrixView<T>(given->y, {problem.rows, problem.columns}), Activation::gelu, given->options);
  };
  call();
  write<T>(problem, {&given->y});
  return call;
}

// Self-attention with four weights, which are packed before.
template <class T>
struct Layer {
  std::vector<T> x, y;
  MultiHeadAttention<T> layer;
  MultiHeadOptions options;

  static MultiHeadAttention<T> made(const Problem& p) {
    const std::int64_t width = p.heads * p.head_dim;
    const std::vector<T> q = operand<T>(p, "Wq"), k = operand<T>(p, "Wk"), v = operand<T>(p, "Wv"),
                         out = operand<T>(p, "Wo");
    const auto view = [&](const std::vector<T>& weight) { return MatrixView<const T>(weight, {width, width}); };
    MultiHeadWeights<T> weights;
    weights.q = view(q), weights.k = view(k), weights.v = view(v), weights.out = view(out);
    return {{.heads = p.heads, .order = WeightOrder::in_out}, weights};
  }
  explicit Layer(const Problem& p) : x(operand<T>(p, "x")), y(x.size()), layer(made(p)) {}
};

template <class T>
Call layer(const Problem& problem, int threads) {
  const auto given = std::make_shared<Layer<T>>(problem);
  given->options.attention.threads = threads;
  const std::array<std::int64_t, 3> extents{problem.batch, problem.length, problem.heads * problem.head_dim};
  const Call call = [given, extents] {
    given->layer.forward(View3<const T>(given->x.data(), extents), View3<T>(given->y.data(), extents), given->options);
  };
  call();
  write<T>(problem, {&given->y});
  return call;
}

// The chapter's, into the caller's output.
Call sample(const Problem& problem) {
  const auto matrix = [&](const char* name, std::int64_t rows, std::int64_t columns) {
    Matrix<double> values(rows, columns);
    const std::vector<double> read = operand<double>(problem, name);
    std::copy(read.begin(), read.end(), values.data());
    return values;
  };
  const auto output = std::make_shared<std::vector<double>>(6);
  const Call call = [output, X = matrix("X", 2, 3), Wq = matrix("Wq", 3, 6), Wk = matrix("Wk", 3, 6),
                     Wv = matrix("Wv", 3, 6), Wo = matrix("Wo", 6, 3)] {
    multi_head_attention(X, Wq, Wk, Wv, Wo, 2, MatrixView<double>(*output, {2, 3}));
  };
  call();
  write<double>(problem, {output.get()});
  return call;
}

template <class T>
Call prepare_typed(const Problem& problem, int threads) {
  if (problem.kind == "forward") return forward<T>(problem, threads);
  if (problem.kind == "backward") return backward<T>(problem, threads);
  if (problem.kind == "product") return product<T>(problem, threads);
  if (problem.kind == "layer") return layer<T>(problem, threads);
  throw Error(ErrorCode::unsupported, "no " + problem.kind + " in " + problem.type);
}

Call prepare(const Problem& problem, int threads) {
  if (problem.kind == "decode") return prepare_decode(problem, threads);
  if (problem.kind == "sample") return sample(problem);
  if (problem.type == "float32") return prepare_typed<float>(problem, threads);
  if (problem.type == "float64") return prepare_typed<double>(problem, threads);
  if (problem.type == "bfloat16") return prepare_typed<BFloat16>(problem, threads);
  return prepare_typed<Float16>(problem, threads);
}

double seconds_of(const Call& call, int repeats, int threads) {
  const std::clock_t processor = std::clock();
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < repeats; ++i) call();
  const double wall = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return (threads == 1 ? static_cast<double>(std::clock() - processor) / CLOCKS_PER_SEC : wall) / repeats;
}

constexpr double kCeilingSeconds = 0.05;  // of each loop: the clock moves within a row's turns too

// A ceiling's mean rate, of all threads together.
double rate_now(const std::string& name, int threads) {
  static const std::vector<bench::Ceiling> known = bench::ceilings();
  const auto ceiling = std::find_if(known.begin(), known.end(), [&](const auto& one) { return one.name == name; });
  if (ceiling == known.end()) return 0;
  std::vector<double> rates(static_cast<std::size_t>(threads));
  std::vector<std::thread> others;
  const auto measured = [&](double& rate) {
    thread_local std::vector<float> operands;
    if (operands.size() * sizeof(float) != ceiling->bytes) operands = bench::random_bytes(ceiling->bytes);
    bench::averaged_for = kCeilingSeconds;
    rate = bench::measure(*ceiling, operands);
  };
  for (std::size_t i = 1; i < rates.size(); ++i) others.emplace_back([&, i] { measured(rates[i]); });
  measured(rates[0]);
  for (std::thread& other : others) other.join();
  return std::accumulate(rates.begin(), rates.end(), 0.0);
}

std::string answer(const std::string& line, int threads, Call& call) {
  std::istringstream words(line);
  std::string verb;
  words >> verb;
  if (verb == "run") {
    int repeats = 0;
    words >> repeats;
    std::ostringstream seconds;
    seconds << seconds_of(call, repeats, threads);
    return seconds.str();
  }
  if (verb == "rates") {
    std::ostringstream rates;
    for (std::string name; words >> name;) rates << rate_now(name, threads) << ' ';
    return rates.str();
  }
  Problem p;
  words >> p.folder >> p.result >> p.name >> p.kind >> p.type >> p.batch >> p.heads >> p.kv_heads >> p.length >>
      p.head_dim >> p.causal >> p.left >> p.right >> p.rows >> p.inner >> p.columns >> p.side_by_side >> p.queries;
  try {
    call = prepare(p, threads);
  } catch (const Error& error) {
    return std::string("cannot ") + error.what();
  }
  return "ready";
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: multihead_compare_bench THREADS\n";
    return 2;
  }
  const int threads = std::stoi(argv[1]);
  Call call;
  for (std::string line; std::getline(std::cin, line);) std::cout << answer(line, threads, call) << std::endl;
  return 0;
}

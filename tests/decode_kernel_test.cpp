// SPDX-License-Identifier: Apache-2.0
// The decode kernel against attention() on the same keys in rows: the same bits, on every target, of every page layout,
// cut into tasks anyhow.
#include <gtest/gtest.h>

#include <numbers>

#include "decode_cache.hpp"
#include "kernels/decode_task.hpp"

namespace multihead::testing {
namespace {

struct Shape {
  std::int64_t heads, tokens, length, head_dim, value_dim, page_len;
  bool blocked;

  explicit Shape(Random& random) {
    heads = random.between(1, 9), tokens = random.between(1, kDecodeRows / heads < 5 ? kDecodeRows / heads : 5);
    length = random.chance(50) ? random.between(1, 200) : random.between(200, 900);
    head_dim = random.chance(60) ? random.pick<std::int64_t>({16, 64, 128}) : random.between(1, 70);
    value_dim = random.chance(60) ? random.pick<std::int64_t>({16, 64, 128}) : random.between(1, 70);
    blocked = random.chance(65);
    page_len = blocked ? 32 * random.between(1, 5) : random.between(1, 150);
    if (!blocked && random.chance(30)) page_len = length;
  }
};

// Options of attention() that decode knows, and what they say of a row.
struct Options {
  AttentionOptions options;
  std::vector<double> slopes, sinks;

  Options(Random& random, const Shape& shape) {
    options.alignment = Alignment::at(shape.length - shape.tokens + (random.chance(20) ? random.between(-3, 40) : 0));
    options.causal = random.chance(80);
    if (random.chance(40)) options.window.left = random.between(0, shape.length);
    if (random.chance(20)) options.window.right = random.between(0, 5);
    if (random.chance(30)) options.window.first = random.between(0, 40);
    if (random.chance(30)) options.softcap = 5;
    if (random.chance(30)) options.scale = 0.3;
    for (std::int64_t h = 0; h < shape.heads; ++h) slopes.push_back(random.uniform()), sinks.push_back(random.normal());
    if (random.chance(30)) options.alibi_slopes = slopes;
    if (random.chance(30)) options.sinks = sinks;
  }
  Options(const Options&) = delete;

  // Row (h, i) without pointers.
  DecodeRow row(const Shape& shape, std::int64_t h, std::int64_t i) const {
    DecodeRow row{};
    const auto head = static_cast<std::size_t>(h);
    const Window& window = options.window;
    row.position = options.alignment.offset() + i;
    std::int64_t end = shape.length;
    if (options.causal) end = std::min(end, row.position + 1);
    if (window.right >= 0) end = std::min(end, row.position + window.right + 1);
    end = std::max<std::int64_t>(end, 0);
    const std::int64_t begin = window.left >= 0 ? std::max<std::int64_t>(row.position - window.left, 0) : 0;
    if (begin < end) row.visible = {begin, end};
    if (window.left >= 0) row.first = std::min(window.first, end);
    if (!options.alibi_slopes.empty()) row.slope = static_cast<float>(-slopes[head] * std::numbers::log2e);
    row.has_sink = !options.sinks.empty();
    if (row.has_sink) row.sink = sinks[head];
    return row;
  }
  void set_scale(const Shape& shape, DecodeTask& task) const {
    const double scale = options.scale.value_or(1 / std::sqrt(static_cast<double>(shape.head_dim)));
    task.scale = static_cast<float>(options.softcap > 0 ? scale / options.softcap : scale * std::numbers::log2e);
    task.cap = static_cast<float>(options.softcap * std::numbers::log2e);
  }
};

// Outputs and lse of all rows, as (heads, tokens, value_dim) and (heads, tokens).
template <class T>
struct Result {
  Tensor<T> out;
  std::vector<float> lse;

  explicit Result(const Shape& shape)
      : out({1, shape.heads, shape.tokens, shape.value_dim}),
        lse(static_cast<std::size_t>(shape.heads * shape.tokens), 77) {}
  std::uint64_t hash() const {
    return hash_bits(View<const float, 1>(lse.data(), {static_cast<std::int64_t>(lse.size())}), hash_bits(out.view));
  }
};

// How the rows and blocks are cut into tasks.
enum class Way { whole, states, partials };

// A problem for a target's kernel.
struct Call {
  const KernelTable& table;
  const Shape& shape;
  const Options& options;
  const CachedRows& cache;
  Way way;
};

// All rows of the problem, in tasks that are cut by chance.
template <class T>
void decode(Random& random, const Call& call, const Tensor<T>& q, Result<T>& result) {
  const auto& [table, shape, options, cache, way] = call;
  const std::int64_t count = shape.heads * shape.tokens, blocks = (shape.length + kKeyBlock - 1) / kKeyBlock;
  const std::int64_t state_size = decode_state_elements(shape.value_dim) + random.between(0, 3);
  const bool bytes = cache.element == Element::int8;
  std::vector<float> states(static_cast<std::size_t>(count * state_size * (way == Way::partials ? blocks : 1)), 77);
  std::vector<DecodeRow> rows;
  for (std::int64_t h = 0; h < shape.heads; ++h)
    for (std::int64_t i = 0; i < shape.tokens; ++i) {
      DecodeRow row = options.row(shape, h, i);
      row.q = &q.view(0, h, i, 0), row.out = &result.out.view(0, h, i, 0);
      row.lse = &result.lse[static_cast<std::size_t>(h * shape.tokens + i)];
      row.state =
          states.data() + static_cast<std::int64_t>(rows.size()) * (way == Way::partials ? blocks : 1) * state_size;
      rows.push_back(row);
    }
  const std::int64_t together = random.chance(60) ? count : random.between(1, count);
  for (std::int64_t first = 0; first < count; first += together) {
    DecodeTask task{};
    task.type = kTypeOf<T>, task.cache = cache, options.set_scale(shape, task);
    task.count = static_cast<int>(std::min(together, count - first));
    task.head_dim = static_cast<int>(shape.head_dim), task.value_dim = static_cast<int>(shape.value_dim);
    task.partial_stride = state_size;
    std::vector<float> scratch(decode_scratch_elements(task.count, shape.head_dim, shape.value_dim),
                               std::numeric_limits<float>::quiet_NaN());
    std::vector<DecodeRow> own(rows.begin() + first, rows.begin() + first + task.count);
    for (std::int64_t from = 0; from < blocks;) {
      const std::int64_t to = way == Way::whole ? blocks : random.between(from + 1, blocks);
      for (std::size_t r = 0; way == Way::partials && r < own.size(); ++r)
        own[r].state = rows[static_cast<std::size_t>(first) + r].state + from * state_size;
      task.rows = own.data(), task.scratch = scratch.data();
      task.first_block = from, task.last_block = to, task.begins = from == 0;
      task.leaves = way == Way::partials                ? DecodeTask::Leaves::partials
                    : way == Way::states && to < blocks ? DecodeTask::Leaves::state
                                                        : DecodeTask::Leaves::output;
      (bytes ? table.decode_int8 : table.decode)(task);
      from = to;
    }
  }
  if (way != Way::partials) return;
  std::vector<float> scratch(decode_scratch_elements(1, 0, shape.value_dim));
  for (const DecodeRow& row : rows)
    table.decode_fold({row, kTypeOf<T>, static_cast<int>(shape.value_dim), blocks, state_size,
                       bytes && cache.by_channel ? cache.v_scales : nullptr, scratch.data()});
}

// attention() on a target.
template <class T>
void attend(const Options& options, Target target, const Tensor<T>& q, const Tensor<T>& k, const Tensor<T>& v,
            Result<T>& result) {
  AttentionOptions pinned = options.options;
  pinned.target = target;
  attention(View4<const T>(q.view), View4<const T>(k.view), View4<const T>(v.view), result.out.view,
            View3<float>(result.lse.data(), {1, q.view.extent(1), q.view.extent(2)}), pinned);
}

std::string described(const Shape& s, Target target, Way way) {
  return std::string(target_name(target)) + " heads " + std::to_string(s.heads) + " tokens " +
         std::to_string(s.tokens) + " length " + std::to_string(s.length) + " dims " + std::to_string(s.head_dim) +
         " " + std::to_string(s.value_dim) + " pages of " + std::to_string(s.page_len) + (s.blocked ? " blocked" : "") +
         " way " + std::to_string(static_cast<int>(way));
}

// NaN and infinities, where rows see them and where they do not.
template <class T>
void place_specials(Random& random, Tensor<T>& tensor) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  for (std::int64_t i = random.between(1, 6); i > 0; --i)
    tensor.view(0, 0, random.between(0, tensor.view.extent(2) - 1), random.between(0, tensor.view.extent(3) - 1)) =
        T(random.pick({nan, infinity, -infinity}));
}

template <class T>
void expect_bits_of_attention(std::uint64_t seed) {
  Random random(seed);
  for (int i = 0, problems = quick_share() ? 25 : 120; i < problems; ++i) {
    const Shape shape(random);
    const Options options(random, shape);
    Tensor<T> q({1, shape.heads, shape.tokens, shape.head_dim}), k({1, 1, shape.length, shape.head_dim}),
        v({1, 1, shape.length, shape.value_dim});
    q.fill_normal(random), k.fill_normal(random, 2), v.fill_normal(random);
    if (random.chance(25)) place_specials(random, v);
    if (random.chance(15)) place_specials(random, k);
    DecodeCache<T> cache(random, shape.length, shape.head_dim, shape.value_dim, shape.page_len, shape.blocked);
    for (std::int64_t p = 0; p < shape.length; ++p) {
      for (std::int64_t c = 0; c < shape.head_dim; ++c) cache.key(p, c) = k.view(0, 0, p, c);
      for (std::int64_t c = 0; c < shape.value_dim; ++c) cache.value(p, c) = v.view(0, 0, p, c);
    }
    for (Target target : available_targets()) {
      const KernelTable& table = *find_kernels(target);
      EXPECT_EQ(table.decode == nullptr, table.tiles);
      if (!table.decode) continue;
      Result<T> wanted(shape);
      attend(options, target, q, k, v, wanted);
      for (Way way : {Way::whole, Way::states, Way::partials}) {
        Result<T> got(shape);
        decode(random, {table, shape, options, cache.rows, way}, q, got);
        ASSERT_EQ(got.hash(), wanted.hash()) << i << ": " << described(shape, target, way);
      }
    }
  }
}

// Quantised keys and values and their scales: of channels any, of positions powers of two, which round nothing.
struct Bytes {
  Tensor<float> k, v;
  std::vector<float> k_scales, v_scales;
  bool by_channel;

  Bytes(Random& random, const Shape& shape)
      : k({1, 1, shape.length, shape.head_dim}),
        v({1, 1, shape.length, shape.value_dim}),
        by_channel(random.chance(50)) {
    for (Tensor<float>* tensor : {&k, &v})
      tensor->each([&](float& x) { x = static_cast<float>(random.between(-127, 127)); });
    const auto scale = [&] {
      return by_channel ? static_cast<float>(0.005 + 0.02 * random.uniform())
                        : std::ldexp(1.0f, static_cast<int>(random.between(-9, -6)));
    };
    for (std::int64_t i = 0; i < (by_channel ? shape.head_dim : shape.length); ++i) k_scales.push_back(scale());
    for (std::int64_t i = 0; i < (by_channel ? shape.value_dim : shape.length); ++i) v_scales.push_back(scale());
  }
  void fill(DecodeCache<std::int8_t>& cache) const {
    const std::int64_t head_dim = k.view.extent(3), value_dim = v.view.extent(3);
    cache.make_scales(head_dim, value_dim, by_channel);
    if (by_channel) std::copy(k_scales.begin(), k_scales.end(), cache.k_scales.begin());
    if (by_channel) std::copy(v_scales.begin(), v_scales.end(), cache.v_scales.begin());
    for (std::int64_t p = 0; p < k.view.extent(2); ++p) {
      for (std::int64_t c = 0; c < head_dim; ++c) cache.key(p, c) = static_cast<std::int8_t>(k.view(0, 0, p, c));
      for (std::int64_t c = 0; c < value_dim; ++c) cache.value(p, c) = static_cast<std::int8_t>(v.view(0, 0, p, c));
      if (by_channel) continue;
      cache.k_scales[cache.scale_place(p)] = k_scales[static_cast<std::size_t>(p)];
      cache.v_scales[cache.scale_place(p)] = v_scales[static_cast<std::size_t>(p)];
    }
  }
};

// The rule of cached_rows.hpp, by attention() in float32 and what stands before and after it.
template <class T>
void attend_bytes(const Options& options, Target target, const Bytes& bytes, const Tensor<T>& q, Result<T>& result) {
  const auto at = [](const std::vector<float>& scales, std::int64_t i) { return scales[static_cast<std::size_t>(i)]; };
  const auto shape_of = [](const auto& view) {
    return std::array{view.extent(0), view.extent(1), view.extent(2), view.extent(3)};
  };
  Tensor<float> wide(shape_of(q.view)), k(shape_of(bytes.k.view)), v(shape_of(bytes.v.view)),
      out(shape_of(result.out.view));
  const auto scaled = [&](const auto& from, auto& to, const std::vector<float>* by_position,
                          const std::vector<float>* by_channel) {
    for (std::int64_t h = 0; h < to.view.extent(1); ++h)
      for (std::int64_t i = 0; i < to.view.extent(2); ++i)
        for (std::int64_t c = 0; c < to.view.extent(3); ++c) {
          float x = static_cast<float>(from.view(0, h, i, c));
          if (by_position) x *= at(*by_position, i);
          if (by_channel) x *= at(*by_channel, c);
          to.view(0, h, i, c) = static_cast<std::remove_reference_t<decltype(to.view(0, h, i, c))>>(x);
        }
  };
  const bool channels = bytes.by_channel;
  scaled(q, wide, nullptr, channels ? &bytes.k_scales : nullptr);
  scaled(bytes.k, k, channels ? nullptr : &bytes.k_scales, nullptr);
  scaled(bytes.v, v, channels ? nullptr : &bytes.v_scales, nullptr);
  AttentionOptions pinned = options.options;
  pinned.target = target == Target::amx ? Target::avx512 : target;
  attention(View4<const float>(wide.view), View4<const float>(k.view), View4<const float>(v.view), out.view,
            View3<float>(result.lse.data(), {1, q.view.extent(1), q.view.extent(2)}), pinned);
  scaled(out, result.out, nullptr, channels ? &bytes.v_scales : nullptr);
}

template <class T>
void expect_bits_over_bytes(std::uint64_t seed) {
  Random random(seed);
  for (int i = 0, problems = quick_share() ? 20 : 80; i < problems; ++i) {
    const Shape shape(random);
    const Options options(random, shape);
    Tensor<T> q({1, shape.heads, shape.tokens, shape.head_dim});
    q.fill_normal(random);
    const Bytes bytes(random, shape);
    DecodeCache<std::int8_t> cache(random, shape.length, shape.head_dim, shape.value_dim, shape.page_len,
                                   shape.blocked);
    bytes.fill(cache);
    for (Target target : available_targets()) {
      Result<T> wanted(shape);
      attend_bytes(options, target, bytes, q, wanted);
      for (Way way : {Way::whole, Way::states, Way::partials}) {
        Result<T> got(shape);
        decode(random, {*find_kernels(target), shape, options, cache.rows, way}, q, got);
        ASSERT_EQ(got.hash(), wanted.hash()) << i << ": " << described(shape, target, way);
      }
    }
  }
}

TEST(DecodeKernel, HasTheBitsOfAttentionInFloat32) { expect_bits_of_attention<float>(1); }
TEST(DecodeKernel, HasTheBitsOfAttentionInBFloat16) { expect_bits_of_attention<BFloat16>(2); }
TEST(DecodeKernel, HasTheBitsOfAttentionInFloat16) { expect_bits_of_attention<Float16>(3); }

TEST(DecodeKernel, HasTheBitsOfAttentionOverBytes) { expect_bits_over_bytes<float>(4); }
TEST(DecodeKernel, HasTheBitsOfAttentionOverBytesInBFloat16) { expect_bits_over_bytes<BFloat16>(5); }
TEST(DecodeKernel, HasTheBitsOfAttentionOverBytesInFloat16) { expect_bits_over_bytes<Float16>(6); }

}  // namespace
}  // namespace multihead::testing

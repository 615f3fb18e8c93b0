// SPDX-License-Identifier: Apache-2.0
// The operators around Attention: RotaryEmbedding of opset 23, TensorScatter of opset 24.
#include <functional>
#include <numeric>
#include <string>

#include "operators.hpp"

namespace multihead::onnx {

namespace {

struct Rotation {
  std::array<std::int64_t, 4> extents, strides;  // of x and y, seen as (batch, heads, length, head_dim)
  MatrixView<const float> cos, sin;
  std::vector<std::int64_t> positions;
};

// A table (positions, pairs), or (batch, length, pairs) as (batch x length, pairs).
std::array<std::int64_t, 2> table_extents(const Case& c, const Array& table, bool by_position) {
  const Shape& s = table.shape;
  if (s.size() != (by_position ? 2U : 3U))
    c.malformed(by_position ? "with position_ids the caches must have 2 axes"
                            : "without position_ids they must have 3");
  return by_position ? std::array{s[0], s[1]} : std::array{s[0] * s[1], s[2]};
}

Rotation read_rotation(const Case& c) {
  const Array& x = c.input("x");
  const Shape& s = x.shape;
  Rotation r;
  if (s.size() == 4) {
    const View4<const char> whole(nullptr, {s[0], s[1], s[2], s[3]});
    r.extents = whole.extents(), r.strides = whole.strides();
  } else {
    const std::int64_t heads = c.integer("num_heads", 0);
    if (s.size() != 3 || heads < 1 || s[2] % heads != 0)
      c.malformed("x has shape " + shape_text(s) + "; it must have 4 axes, or 3 and num_heads that divide the last");
    const std::int64_t width = s[2] / heads;
    r.extents = {s[0], heads, s[1], width}, r.strides = {s[1] * s[2], width, s[2], 1};
  }
  const std::int64_t batch = r.extents[0], length = r.extents[2], head_dim = r.extents[3];
  const Array *const ids = c.find("position_ids"), &cos = c.input("cos_cache"), &sin = c.input("sin_cache");
  c.expect_shape("sin_cache", sin, cos.shape);
  const std::array<std::int64_t, 2> table = table_extents(c, cos, ids != nullptr);
  const std::int64_t rotary_dim = c.integer("rotary_embedding_dim", 0);
  if (table[1] * 2 != (rotary_dim == 0 ? head_dim : rotary_dim))
    c.malformed("the caches must have half the rotated width as their last extent");
  if (ids) {
    c.expect_shape("position_ids", *ids, {batch, length});
    r.positions = c.integers("position_ids");
  } else {
    c.expect_shape("cos_cache", cos, {batch, length, table[1]});
    r.positions.resize(static_cast<std::size_t>(batch * length));
    std::iota(r.positions.begin(), r.positions.end(), 0);
  }
  r.cos = MatrixView<const float>(cos.values<float>().data(), table);
  r.sin = MatrixView<const float>(sin.values<float>().data(), table);
  return r;
}

template <class T>
void scatter(const Case& c, Judge& judge) {
  const Array &past = c.input("past_cache"), &update = c.input("update");
  const auto rank = static_cast<std::int64_t>(past.shape.size());
  std::int64_t axis = c.integer("axis", -2);
  if (axis < 0) axis += rank;
  if (axis < 1 || axis >= rank) c.malformed("axis must be one of past_cache's but the first");
  // (batch, whatever is before the axis, axis, whatever is after it)
  const auto folded = [&](const Shape& shape) {
    const auto product = [&](std::int64_t from, std::int64_t to) {
      return std::accumulate(shape.begin() + from, shape.begin() + to, std::int64_t{1}, std::multiplies<>());
    };
    return std::array{shape[0], product(1, axis), shape[static_cast<std::size_t>(axis)], product(axis + 1, rank)};
  };
  Shape wanted = past.shape;
  if (update.shape.size() == past.shape.size())
    wanted[static_cast<std::size_t>(axis)] = update.shape[static_cast<std::size_t>(axis)];
  c.expect_shape("update", update, wanted);
  c.expect_shape("present_cache", c.output("present_cache"), past.shape);
  std::vector<std::int64_t> begins(static_cast<std::size_t>(past.shape[0]));
  if (const Array* const given = c.find("write_indices")) {
    c.expect_shape("write_indices", *given, {past.shape[0]});
    begins = c.integers("write_indices");
  }
  const std::string mode = c.word("mode", "linear");
  if (mode != "linear" && mode != "circular") c.malformed("mode must be linear or circular");

  std::vector<T> cache(past.values<T>().begin(), past.values<T>().end());
  write_cache(View4<T>(cache.data(), folded(past.shape)),
              View4<const T>(update.values<T>().data(), folded(update.shape)), begins,
              mode == "linear" ? CacheWrite::linear : CacheWrite::circular);
  judge.same("present_cache", std::as_bytes(std::span(cache)), c.output("present_cache"));
}

}  // namespace

void run_rotary_embedding(const Case& c, Target target, Judge& judge) {
  c.only({"interleaved", "num_heads", "rotary_embedding_dim"}, {"cos_cache", "position_ids", "sin_cache", "x"}, {"y"});
  const Array &x = c.input("x"), &y = c.output("y");
  for (const Array* array : {&x, &c.input("cos_cache"), &c.input("sin_cache")})
    if (array->type != ElementType::float32) throw Skipped{"tensors of " + std::string(type_name(array->type))};
  c.expect_shape("y", y, x.shape);
  c.expect_type("y", y, x.type);
  const Rotation r = read_rotation(c);
  std::vector<float> turned(static_cast<std::size_t>(y.count()));
  rotary_embedding(View4<const float>(x.values<float>().data(), r.extents, r.strides), r.cos, r.sin,
                   MatrixView<const std::int64_t>(r.positions.data(), {r.extents[0], r.extents[2]}),
                   c.integer("interleaved", 0) != 0 ? RotaryPairing::interleaved : RotaryPairing::half_split,
                   View4<float>(turned.data(), r.extents, r.strides), target);
  judge.near("y", exactly(turned), y);
}

void run_tensor_scatter(const Case& c, Judge& judge) {
  c.only({"axis", "mode"}, {"past_cache", "update", "write_indices"}, {"present_cache"});
  const ElementType type = c.input("past_cache").type;
  c.expect_type("update", c.input("update"), type);
  c.expect_type("present_cache", c.output("present_cache"), type);
  switch (type) {
    case ElementType::float16:
      return scatter<Float16>(c, judge);
    case ElementType::float32:
      return scatter<float>(c, judge);
    case ElementType::float64:
      return scatter<double>(c, judge);
    default:
      throw Skipped{"a cache of " + std::string(type_name(type))};
  }
}

}  // namespace multihead::onnx

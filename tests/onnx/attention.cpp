// SPDX-License-Identifier: Apache-2.0
// Attention of opsets 23 to 25: inputs to views and options, outputs to the judge.
#include <algorithm>
#include <limits>
#include <string>

#include "operators.hpp"

namespace multihead::onnx {

namespace {

// (batch, heads, length, width), or (batch, length, heads x width) seen as that.
struct Layout {
  std::array<std::int64_t, 4> extents, strides;

  template <class T>
  View4<T> view(T* data) const {
    return {data, extents, strides};
  }
};

Layout layout_of(const Case& c, const std::string& tensor, const Shape& shape, std::int64_t heads) {
  if (shape.size() == 4) {
    const View4<const char> whole(nullptr, {shape[0], shape[1], shape[2], shape[3]});
    return {whole.extents(), whole.strides()};
  }
  if (shape.size() != 3) c.malformed(tensor + " has shape " + shape_text(shape) + "; it must have 3 axes or 4");
  if (heads < 1 || shape[2] % heads != 0)
    c.malformed(tensor + " has shape " + shape_text(shape) + "; its last extent must be a multiple of its heads, " +
                std::to_string(heads));
  const std::int64_t width = shape[2] / heads;
  return {{shape[0], heads, shape[1], width}, {shape[1] * shape[2], width, shape[2], 1}};
}

template <class T>
std::vector<T> elements(const Array& array) {
  if constexpr (std::is_same_v<T, Float16>)
    return {array.values<T>().begin(), array.values<T>().end()};
  else
    return array.converted<T>();
}

// The mask as the option it is, of its own rank: missing axes repeat.
template <class Option, class T>
Option broadcast(const Array& array) {
  const T* const data = array.values<T>().data();
  const Shape& s = array.shape;
  switch (s.size()) {
    case 1:
      return View<const T, 1>(data, {s[0]});
    case 2:
      return View<const T, 2>(data, {s[0], s[1]});
    case 3:
      return View<const T, 3>(data, {s[0], s[1], s[2]});
    default:
      return View<const T, 4>(data, {s[0], s[1], s[2], s[3]});
  }
}

// The rows of array, each made longer by copies of fill.
template <class T>
Array padded(const Array& array, std::int64_t length, T fill) {
  const std::span<const T> from = array.values<T>();
  Array to = array;
  to.shape.back() = length;
  std::vector<T> values;
  for (auto row = from.begin(); row != from.end(); row += array.shape.back()) {
    values.insert(values.end(), row, row + array.shape.back());
    values.insert(values.end(), static_cast<std::size_t>(length - array.shape.back()), fill);
  }
  const auto bytes = std::as_bytes(std::span(values));
  to.bytes.assign(bytes.begin(), bytes.end());
  return to;
}

// What a case asks for, in the library's words. options points into it.
struct Request {
  const Case& c;
  std::int64_t past = 0;
  Layout q, k, v, y;
  std::int64_t kv_len = 0;
  std::vector<std::int64_t> lengths, offsets;
  Array mask;
  AttentionOptions options;
  WeightsPoint point = WeightsPoint::scaled;

  Request(const Case& given, Target target) : c(given) {
    check_names();
    read_extents();
    options.target = target;
    options.scale = c.number("scale");
    options.softcap = c.number("softcap").value_or(0);
    read_positions();
    read_mask();
    read_modes();
  }
  Request(const Request&) = delete;

  bool flat() const { return c.input("q").shape.size() == 3; }
  // A present is asked for, or there is a past to join.
  bool joins() const { return c.find("past_key") || c.outputs.contains("present_key"); }
  bool scores() const { return c.outputs.contains("qk_matmul_output"); }
  Shape scores_shape() const { return {q.extents[0], q.extents[1], q.extents[2], kv_len}; }

 private:
  void check_names() const {
    if (c.opset >= 25)
      c.only({"is_causal", "kv_num_heads", "left_window_size", "q_num_heads", "qk_matmul_output_mode",
              "right_window_size", "scale", "softcap", "softmax_precision"},
             {"attn_mask", "k", "nonpad_kv_seqlen", "past_key", "past_value", "q", "v"},
             {"present_key", "present_value", "qk_matmul_output", "y"});
    else if (c.opset == 24)
      c.only({"is_causal", "kv_num_heads", "q_num_heads", "qk_matmul_output_mode", "scale", "softcap",
              "softmax_precision"},
             {"attn_mask", "k", "nonpad_kv_seqlen", "past_key", "past_value", "q", "v"},
             {"present_key", "present_value", "qk_matmul_output", "y"});
    else
      c.only({"is_causal", "kv_num_heads", "q_num_heads", "qk_matmul_output_mode", "scale", "softcap",
              "softmax_precision"},
             {"attn_mask", "k", "past_key", "past_value", "q", "v"},
             {"present_key", "present_value", "qk_matmul_output", "y"});
  }

  void read_extents();
  void read_positions();
  void read_mask();
  void read_modes();
};

void Request::read_extents() {
  const std::int64_t heads = c.integer("q_num_heads", 0), kv_heads = c.integer("kv_num_heads", 0);
  if (!flat() && c.opset >= 25 && (heads != 0 || kv_heads != 0))
    c.malformed("q_num_heads and kv_num_heads belong to inputs of 3 axes");
  const auto layout = [&](const char* name, std::int64_t its_heads) {
    const Array& array = c.input(name);
    if (array.shape.size() != c.input("q").shape.size()) c.malformed("q, k and v must have one number of axes");
    return layout_of(c, name, array.shape, its_heads);
  };
  q = layout("q", heads), k = layout("k", kv_heads), v = layout("v", kv_heads);
  const auto [batch, q_heads, q_len, head_dim] = q.extents;
  const std::int64_t fresh = k.extents[2], value_dim = v.extents[3];
  if (k.extents != std::array{batch, k.extents[1], fresh, head_dim})
    c.malformed("k has other batches or another head size than q");
  if (v.extents != std::array{batch, k.extents[1], fresh, value_dim})
    c.malformed("v has other batches, heads or positions than k");
  const Shape y_shape = flat() ? Shape{batch, q_len, q_heads * value_dim} : Shape{batch, q_heads, q_len, value_dim};
  c.expect_shape("y", c.output("y"), y_shape);
  y = layout_of(c, "y", y_shape, q_heads);

  const Array* const past_key = c.find("past_key");
  if (!past_key != !c.find("past_value")) c.malformed("past_key and past_value come together");
  if (past_key && past_key->shape.size() == 4) past = past_key->shape[2];
  kv_len = past + fresh;
  const auto check = [&](const char* name, const Array* array, const Shape& shape) {
    if (array) c.expect_shape(name, *array, shape);
  };
  const auto output = [&](const char* name) { return c.outputs.contains(name) ? &c.output(name) : nullptr; };
  check("past_key", past_key, {batch, k.extents[1], past, head_dim});
  check("past_value", c.find("past_value"), {batch, k.extents[1], past, value_dim});
  check("present_key", output("present_key"), {batch, k.extents[1], kv_len, head_dim});
  check("present_value", output("present_value"), {batch, k.extents[1], kv_len, value_dim});
  check("qk_matmul_output", output("qk_matmul_output"), scores_shape());
}

// Query i is at position i + off: the past's length, or nonpad - q_len, or 0.
void Request::read_positions() {
  options.causal = c.integer("is_causal", 0) != 0;
  options.window = {c.integer("left_window_size", -1), c.integer("right_window_size", -1)};
  if (options.window.left < -1 || options.window.right < -1) c.malformed("a window size must be -1 or more");
  const std::int64_t batch = q.extents[0], q_len = q.extents[2];
  if (const Array* const nonpad = c.find("nonpad_kv_seqlen")) {
    c.expect_shape("nonpad_kv_seqlen", *nonpad, {batch});
    if (c.find("past_key")) c.malformed("nonpad_kv_seqlen and past_key exclude each other");
    for (const std::int64_t valid : c.integers("nonpad_kv_seqlen")) {
      if (valid < 0) c.malformed("nonpad_kv_seqlen must not be negative");
      lengths.push_back(std::min(valid, kv_len));
      offsets.push_back(valid - q_len);  // a value past the buffer still moves the diagonal
    }
    options.lengths = lengths;
  }
  // What nothing reads is not given.
  if (!options.causal && options.window.left < 0 && options.window.right < 0) return;
  options.alignment = !offsets.empty()     ? Alignment::at(offsets)
                      : c.find("past_key") ? Alignment::at(past)
                                           : Alignment::top_left();
}

void Request::read_mask() {
  const Array* const given = c.find("attn_mask");
  if (!given) return;
  mask = *given;
  const bool known =
      mask.type == ElementType::boolean || mask.type == ElementType::float16 || mask.type == ElementType::float32;
  if (!known) throw Skipped{"a mask of " + std::string(type_name(mask.type))};
  if (mask.shape.empty() || mask.shape.size() > 4)
    c.malformed("attn_mask has shape " + shape_text(mask.shape) + "; it must have 1 to 4 axes");
  // From opset 24 on a mask may end early, be it after one key: the keys after it are hidden.
  const std::int64_t reach = mask.shape.back();
  if (c.opset >= 24 && reach > 0 && reach < kv_len) {
    if (!lengths.empty() && reach < *std::max_element(lengths.begin(), lengths.end()))
      c.malformed("attn_mask ends before nonpad_kv_seqlen");
    if (mask.type == ElementType::boolean) mask = padded<std::uint8_t>(mask, kv_len, 0);
    if (mask.type == ElementType::float16) mask = padded<Float16>(mask, kv_len, Float16::from_bits(0xFC00));
    if (mask.type == ElementType::float32) mask = padded<float>(mask, kv_len, -std::numeric_limits<float>::infinity());
  }
  const Shape whole = scores_shape();
  for (std::size_t axis = 0; axis < mask.shape.size(); ++axis) {
    const std::int64_t extent = mask.shape[mask.shape.size() - 1 - axis], full = whole[3 - axis];
    if (extent != 1 && extent != full)
      c.malformed("attn_mask has shape " + shape_text(mask.shape) + "; it must broadcast to " + shape_text(whole));
  }
  if (mask.type == ElementType::boolean) options.keep_mask = broadcast<Mask, std::uint8_t>(mask);
  if (mask.type == ElementType::float16) options.bias = broadcast<Bias, Float16>(mask);
  if (mask.type == ElementType::float32) options.bias = broadcast<Bias, float>(mask);
}

void Request::read_modes() {
  constexpr std::array kPoints{WeightsPoint::scaled, WeightsPoint::capped, WeightsPoint::biased,
                               WeightsPoint::normalised};
  const std::int64_t mode = c.integer("qk_matmul_output_mode", 0);
  if (mode < 0 || mode > 3) c.malformed("qk_matmul_output_mode must be 0 to 3");
  point = kPoints[static_cast<std::size_t>(mode)];
  // float32, float16 and bfloat16 are served by sums in float32, float64 is not.
  const std::int64_t precision = c.integer("softmax_precision", 1);
  if (precision == 11) throw Skipped{"a softmax in float64 over tensors of another type"};
  if (precision != 1 && precision != 10 && precision != 16) c.malformed("softmax_precision must be 1, 10, 11 or 16");
  const ElementType type = c.input("q").type;
  if (type != ElementType::float32 && type != ElementType::float16)
    throw Skipped{"Q of " + std::string(type_name(type))};
  for (const char* name : {"k", "v", "past_key", "past_value"})
    if (const Array* const array = c.find(name); array && array->type != type)
      throw Skipped{std::string(name) + " of " + std::string(type_name(array->type)) + " beside Q of " +
                    std::string(type_name(type))};
  for (const auto& [name, array] : c.outputs) c.expect_type(name, array, type);
}

// The past and the positions of this call, one after the other.
template <class T>
std::vector<T> joined(const Request& r, const char* past_name, const View4<const T>& fresh) {
  const auto [batch, heads, length, width] = fresh.extents();
  std::vector<T> buffer(static_cast<std::size_t>(batch * heads * r.kv_len * width));
  const View4<T> cache(buffer.data(), {batch, heads, r.kv_len, width});
  const auto write = [&](const View4<const T>& update, std::int64_t begin) {
    const std::vector<std::int64_t> begins(static_cast<std::size_t>(update.extent(0)), begin);
    write_cache(cache, update, begins, CacheWrite::linear);
  };
  if (const Array* const array = r.c.find(past_name)) {
    const std::vector<T> past = elements<T>(*array);
    write(View4<const T>(past.data(), {batch, heads, r.past, width}), 0);
  }
  write(fresh, r.past);
  return buffer;
}

template <class T>
struct Results {
  std::vector<T> y, key, value;  // key and value: the present, where the request joins
  std::vector<float> scores;
};

template <class T>
Results<T> run(const Request& r) {
  const std::vector<T> q = elements<T>(r.c.input("q")), k = elements<T>(r.c.input("k")),
                       v = elements<T>(r.c.input("v"));
  Results<T> results;
  results.y.resize(static_cast<std::size_t>(r.c.output("y").count()));
  View4<const T> keys = r.k.view(k.data()), values = r.v.view(v.data());
  const auto present = [&](const std::vector<T>& buffer, const View4<const T>& fresh) {
    return View4<const T>(buffer.data(), {fresh.extent(0), fresh.extent(1), r.kv_len, fresh.extent(3)});
  };
  if (r.joins()) {
    results.key = joined(r, "past_key", keys), results.value = joined(r, "past_value", values);
    keys = present(results.key, keys), values = present(results.value, values);
  }
  WeightsRequest<float> weights;
  if (r.scores()) {
    const Shape shape = r.scores_shape();
    results.scores.resize(static_cast<std::size_t>(r.c.output("qk_matmul_output").count()));
    weights.point = r.point;
    weights.per_head = View4<float>(results.scores.data(), {shape[0], shape[1], shape[2], shape[3]});
  }
  const View4<const T> queries = r.q.view(q.data());
  const View4<T> out = r.y.view(results.y.data());
  if (weights.any())
    attention(queries, keys, values, out, View3<float>(), weights, r.options);
  else
    attention(queries, keys, values, out, r.options);
  return results;
}

template <class T>
void judge_present(const Case& c, const Results<T>& results, Judge& judge) {
  if (c.outputs.contains("present_key"))
    judge.same("present_key", std::as_bytes(std::span(results.key)), c.output("present_key"));
  if (c.outputs.contains("present_value"))
    judge.same("present_value", std::as_bytes(std::span(results.value)), c.output("present_value"));
}

void judge_float(const Case& c, const Results<float>& results, Judge& judge) {
  judge.near("y", exactly(results.y), c.output("y"));
  if (c.outputs.contains("qk_matmul_output"))
    judge.near("qk_matmul_output", exactly(results.scores), c.output("qk_matmul_output"));
}

// float16 is storage: its call must give the bits of the float call on the same values, rounded once, and that one is
// judged before its rounding, which the expected value alone has then gone through.
void judge_float16(const Request& r, Judge& judge) {
  const Results<Float16> half = run<Float16>(r);
  const Results<float> single = run<float>(r);
  const Case& c = r.c;
  judge_present(c, half, judge);
  judge_float(c, single, judge);
  std::vector<Float16> rounded;
  for (const float value : single.y) rounded.emplace_back(value);
  judge.agree("y in float16", exactly(half.y), exactly(rounded), c.output("y").shape, "in float32, rounded once,");
  if (r.scores())
    judge.agree("qk_matmul_output in float16", exactly(half.scores), exactly(single.scores),
                c.output("qk_matmul_output").shape, "in float32");
}

constexpr std::array kTargets{Target::baseline,   Target::avx2, Target::avx512,
                              Target::avx512bf16, Target::amx,  Target::neon};

std::array<std::uint64_t, kTargets.size()> tasks() {
  std::array<std::uint64_t, kTargets.size()> counts{};
  std::transform(kTargets.begin(), kTargets.end(), counts.begin(), tasks_run);
  return counts;
}

}  // namespace

void run_attention(const Case& c, Target target, Judge& judge) {
  const Request request(c, target);
  const auto before = tasks();
  if (c.input("q").type == ElementType::float16) {
    judge_float16(request, judge);
  } else {
    const Results<float> results = run<float>(request);
    judge_present(c, results, judge);
    judge_float(c, results, judge);
  }
  const auto after = tasks();
  for (std::size_t i = 0; i < kTargets.size(); ++i) {
    const std::string name(target_name(kTargets[i]));
    if (kTargets[i] == target)
      judge.require(after[i] > before[i], "no task of target " + name + " ran");
    else
      judge.require(after[i] == before[i], "tasks of target " + name + " ran");
  }
}

}  // namespace multihead::onnx

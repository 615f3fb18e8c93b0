// SPDX-License-Identifier: Apache-2.0
// Calls of the C face with structs and tensors at random, in memory of exactly their size: whatever they hold, a call
// answers or refuses, reads and writes nothing else (the address sanitizer looks on), and writes nothing when it
// refuses.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include "multihead/multihead.h"
#include "problem.hpp"

namespace multihead::testing {
namespace {

// Tensors and the memory they point to, for one call.
class Room {
 public:
  explicit Room(std::uint64_t seed) : random(seed) {}

  // Of these extents more often than not, of another type or rank now and then.
  const mh_tensor* tensor(mh_type type, std::initializer_list<std::int64_t> shape, bool written = false) {
    if (random.chance(1)) return nullptr;
    mh_tensor& made = *tensors_.emplace_back(std::make_unique<mh_tensor>());
    made.type = random.chance(1) ? static_cast<mh_type>(random.between(-1, 8)) : type;
    made.rank = static_cast<int32_t>(shape.size());
    std::copy(shape.begin(), shape.end(), made.shape);
    if (random.chance(2)) made.shape[random.between(0, 3)] += random.pick<std::int64_t>({1, -1, -1000, kFar});
    lay_out(made, written);
    if (random.chance(1)) made.rank = static_cast<int32_t>(random.between(-1, 6));
    place(made, written);
    return &made;
  }
  // A list of whole numbers from low to high.
  const mh_tensor* list(std::int64_t count, std::int64_t low, std::int64_t high) {
    const mh_tensor* made = tensor(MH_INT64, {count});
    for (std::int64_t& number : numbers_of(made, count)) number = random.between(low, high);
    return made;
  }
  // 0 to end in steps that never fall.
  const mh_tensor* boundaries(std::int64_t count, std::int64_t end) {
    const mh_tensor* made = tensor(MH_INT64, {count});
    std::int64_t last = 0;
    for (std::int64_t& number : numbers_of(made, count))
      number = std::exchange(last, random.between(last, random.chance(2) ? kFar : std::max(last, end)));
    if (const auto all = numbers_of(made, count); !all.empty() && random.chance(97)) all.back() = end;
    return made;
  }
  template <class S>
  void spoil(S& made) {
    if (random.chance(1)) made.struct_size = static_cast<uint32_t>(random.between(0, 2) * 4);
  }
  bool outputs_unchanged() const {
    return std::all_of(memory_.begin(), memory_.end(), [](const Block& block) {
      return !block.written || std::equal(block.bytes.get(), block.bytes.get() + block.size, block.before.begin());
    });
  }
  Random random;

 private:
  static constexpr std::int64_t kFar = std::int64_t{1} << 62, kMost = 1 << 14;

  struct Block {
    std::unique_ptr<unsigned char[]> bytes;
    std::size_t size;
    bool written;
    std::vector<unsigned char> before;
  };

  // The elements of the tensor that was made last, if it is as it was meant.
  std::span<std::int64_t> numbers_of(const mh_tensor* made, std::int64_t count) {
    if (!made || memory_.empty() || made->data != memory_.back().bytes.get() || made->type != MH_INT64) return {};
    if (made->rank != 1 || made->shape[0] != count || made->strides[0] != 1) return {};
    return {static_cast<std::int64_t*>(made->data), static_cast<std::size_t>(count)};
  }

  // Contiguous, with its axes exchanged, with gaps, repeated or turned round.
  void lay_out(mh_tensor& t, bool written) {
    std::int64_t step = 1;
    const bool gaps = random.chance(10);
    for (int axis = t.rank - 1; axis >= 0; --axis) {
      t.strides[axis] = step;
      step *= std::clamp<std::int64_t>(t.shape[axis], 1, 64) + (gaps && axis + 1 < t.rank ? 3 : 0);
    }
    const std::int64_t axis = random.between(0, 3);
    if (!written && random.chance(10)) t.strides[axis] = 0;
    if (random.chance(8)) t.strides[axis] = -t.strides[axis];
    if (random.chance(2)) t.strides[axis] = random.pick<std::int64_t>({kFar, INT64_MIN, INT64_MAX, -kFar, 2});
  }

  // Memory for what the tensor reaches; where that is more than a test has, it must be more than any machine has.
  void place(mh_tensor& t, bool written) {
    __int128 low = 0, high = 0;
    bool none = false;
    for (int axis = 0; axis < std::min(std::max(t.rank, 0), 4); ++axis) {
      none = none || t.shape[axis] <= 0;
      const __int128 reach = (static_cast<__int128>(t.shape[axis]) - 1) * t.strides[axis];
      (reach < 0 ? low : high) += reach;
    }
    const __int128 wanted = high - low + 1;
    if (none || wanted >= kFar) {
      t.data = random.chance(50) ? nullptr : &t;
      return;
    }
    if (wanted > kMost) {  // a machine might have that much: what is asked for becomes small
      for (int axis = 0; axis < 4; ++axis) t.strides[axis] = 0;
      return place(t, written);
    }
    Block& block = memory_.emplace_back();
    block.size = static_cast<std::size_t>(wanted) * 8;
    const std::size_t element = t.type == MH_BOOL                               ? 1
                                : t.type == MH_BFLOAT16 || t.type == MH_FLOAT16 ? 2
                                : t.type == MH_FLOAT32                          ? 4
                                                                                : 8;
    block.size = static_cast<std::size_t>(wanted) * element;
    block.bytes = std::make_unique<unsigned char[]>(block.size);
    block.written = written;
    fill(t.type, block);
    block.before.assign(block.bytes.get(), block.bytes.get() + block.size);
    t.data = block.bytes.get() + static_cast<std::size_t>(-low) * element;
    if (element > 1 && random.chance(1)) t.data = random.chance(50) ? nullptr : static_cast<unsigned char*>(t.data) + 1;
    if (random.chance(1))
      t.data = memory_[static_cast<std::size_t>(random.between(0, static_cast<std::int64_t>(memory_.size()) - 1))]
                   .bytes.get(),
      keep_inside(t, wanted, element);
  }
  // A tensor that was moved into another's memory may reach no further than that.
  void keep_inside(mh_tensor& t, __int128 wanted, std::size_t element) {
    for (const Block& block : memory_)
      if (block.bytes.get() == t.data && (static_cast<__int128>(block.size) < wanted * static_cast<int>(element)))
        t.data = nullptr;
    for (int axis = 0; axis < 4; ++axis)
      if (t.strides[axis] < 0) t.data = nullptr;
  }
  void fill(mh_type type, Block& block) {
    const bool wild = random.chance(10);
    for (std::size_t i = 0; i < block.size; ++i) block.bytes[i] = static_cast<unsigned char>(random.bits());
    if (wild || type == MH_BOOL) return;
    if (type == MH_FLOAT32)
      for (std::size_t i = 0; i + 4 <= block.size; i += 4) store(block, i, static_cast<float>(random.normal()));
    else if (type == MH_FLOAT64)
      for (std::size_t i = 0; i + 8 <= block.size; i += 8) store(block, i, random.normal());
    else if (type == MH_INT64)
      for (std::size_t i = 0; i + 8 <= block.size; i += 8) store(block, i, random.between(0, 3));
  }
  template <class T>
  static void store(Block& block, std::size_t at, T value) {
    std::memcpy(block.bytes.get() + at, &value, sizeof value);
  }

  std::vector<std::unique_ptr<mh_tensor>> tensors_;
  std::vector<Block> memory_;
};

struct Extents {
  std::int64_t batch, heads, kv_heads, q_len, kv_len, head_dim, value_dim;

  explicit Extents(Random& random) {
    batch = random.between(0, 2), kv_heads = random.between(1, 2), heads = kv_heads * random.between(1, 2);
    q_len = random.between(0, 5), kv_len = random.chance(50) ? q_len : random.between(0, 9);
    head_dim = random.between(1, 5), value_dim = random.between(1, 5);
  }
};

// A call's options, their pointers into the room.
struct Options {
  mh_attention_options options;
  mh_run_options run;

  Options(Room& room, const Extents& e) {
    Random& random = room.random;
    const auto number = [&](std::int64_t legal) {
      return random.chance(97) ? legal : random.pick<std::int64_t>({-1, INT64_MAX, INT64_MIN, 1 << 20});
    };
    mh_attention_options_init(&options, sizeof options);
    mh_run_options_init(&run, sizeof run);
    run.threads = random.chance(97) ? 1 : static_cast<int32_t>(random.between(-1, 3));
    run.target = random.chance(95) ? 0 : static_cast<mh_target>(random.between(-1, 5));
    if (random.chance(50)) options.run = &run;
    options.causal = random.chance(30) ? 1 : random.chance(1) ? -7 : 0;
    options.alignment = static_cast<mh_alignment>(random.chance(97) ? random.between(0, 2) : random.between(-1, 6));
    if (random.chance(10)) options.has_scale = 1, options.scale = random.pick({0.5, 0.0, 1e300, std::nan("")});
    if (random.chance(10)) options.softcap = random.pick({20.0, -1.0, 1e-300});
    if (random.chance(5)) options.alignment = MH_ALIGN_OFFSET, options.query_offset = number(random.between(-4, 9));
    if (random.chance(20)) options.window_left = number(random.between(-1, 6));
    if (random.chance(20)) options.window_right = number(random.between(-1, 6));
    if (random.chance(5)) options.alignment = MH_ALIGN_OFFSETS, options.query_offsets = room.list(e.batch, -3, 9);
    if (random.chance(5)) options.prefixes = room.list(e.batch, 0, e.kv_len);
    if (random.chance(10)) options.lengths = room.list(e.batch, 0, e.kv_len);
    if (random.chance(5)) options.cu_seqlens_q = room.boundaries(3, e.q_len);
    if (options.cu_seqlens_q || random.chance(1)) options.cu_seqlens_k = room.boundaries(3, e.kv_len);
    if (random.chance(5)) options.q_segments = room.tensor(MH_INT64, {e.batch, e.q_len});
    if (options.q_segments || random.chance(1)) options.kv_segments = room.tensor(MH_INT64, {e.batch, e.kv_len});
    if (random.chance(10)) options.keep_mask = room.tensor(MH_BOOL, {e.q_len, e.kv_len});
    if (random.chance(10)) options.drop_mask = room.tensor(MH_BOOL, {e.batch, 1, 1, e.kv_len});
    if (random.chance(10)) options.bias = room.tensor(MH_FLOAT32, {e.heads, e.q_len, e.kv_len});
    if (random.chance(10)) options.alibi_slopes = room.tensor(MH_FLOAT64, {e.heads});
    if (random.chance(10)) options.sinks = room.tensor(MH_FLOAT64, {e.heads});
    if (random.chance(10)) options.relative_bias = room.tensor(MH_FLOAT32, {8, e.heads});
    if (random.chance(5)) options.relative_max_distance = number(16);
    room.spoil(options), room.spoil(run);
  }
};

// One call by its seed; returns its status.
mh_status attention_at_random(std::uint64_t seed) {
  Room room(seed);
  const Extents e(room.random);
  const mh_type type = static_cast<mh_type>(room.random.between(MH_FLOAT32, MH_FLOAT16));
  const mh_type sums = type == MH_FLOAT64 ? MH_FLOAT64 : MH_FLOAT32;
  const Options options(room, e);
  const mh_tensor* q = room.tensor(type, {e.batch, e.heads, e.q_len, e.head_dim});
  const mh_tensor* k = room.tensor(type, {e.batch, e.kv_heads, e.kv_len, e.head_dim});
  const mh_tensor* v = room.tensor(type, {e.batch, e.kv_heads, e.kv_len, e.value_dim});
  const mh_tensor* out = room.tensor(type, {e.batch, e.heads, e.q_len, e.value_dim}, true);
  const mh_tensor* lse = room.random.chance(50) ? nullptr : room.tensor(sums, {e.batch, e.heads, e.q_len}, true);
  mh_weights_request request;
  mh_weights_request_init(&request, sizeof request);
  const bool asks = room.random.chance(30);
  if (asks) {
    request.point = static_cast<mh_weights_point>(room.random.between(0, room.random.chance(95) ? 3 : 5));
    const bool some = room.random.chance(40);
    if (some)
      request.heads = room.list(1, 0, e.heads - 1),
      request.rows = room.list(2, 0, std::max<std::int64_t>(e.q_len - 1, 0));
    const std::int64_t heads = some ? 1 : e.heads, rows = some ? 2 : e.q_len;
    request.per_head = room.tensor(sums, {e.batch, heads, rows, e.kv_len}, true);
    if (room.random.chance(50)) request.mean = room.tensor(sums, {e.batch, rows, e.kv_len}, true);
    room.spoil(request);
  }
  const mh_status status = mh_attention(q, k, v, out, lse, asks ? &request : nullptr, &options.options);
  if (status != MH_OK) {
    EXPECT_TRUE(room.outputs_unchanged()) << seed << " " << mh_last_error_message();
    EXPECT_NE(std::string(mh_last_error_message()), "") << seed;
  }
  return status;
}

mh_status questions_at_random(std::uint64_t seed) {
  Room room(seed);
  const Extents e(room.random);
  const Options options(room, e);
  mh_attention_shape shape;
  mh_attention_shape_init(&shape, sizeof shape);
  shape.batch = e.batch, shape.heads = e.heads, shape.kv_heads = e.kv_heads;
  shape.q_len = e.q_len, shape.kv_len = e.kv_len, shape.head_dim = e.head_dim, shape.value_dim = e.value_dim;
  for (std::int64_t* extent : {&shape.batch, &shape.heads, &shape.q_len, &shape.kv_len, &shape.head_dim})
    if (room.random.chance(2)) *extent = room.random.pick<std::int64_t>({-1, 0, 1 << 20, INT64_MAX, INT64_MIN});
  room.spoil(shape);
  mh_attention_plan plan;
  mh_attention_plan_init(&plan, sizeof plan);
  std::size_t bytes = 0;
  const mh_status status = mh_explain(&shape, &options.options, &plan);
  EXPECT_EQ(mh_attention_scratch_bytes(&shape, &options.options, 1, &bytes) == MH_OK, status == MH_OK) << seed;
  EXPECT_EQ(plan.target == 0, status != MH_OK) << seed;
  return status;
}

mh_status layer_at_random(std::uint64_t seed) {
  Room room(seed);
  Random& random = room.random;
  Extents e(random);
  e.head_dim *= 2;
  const mh_type type = static_cast<mh_type>(random.between(MH_FLOAT32, MH_FLOAT16));
  const mh_type sums = type == MH_FLOAT64 ? MH_FLOAT64 : MH_FLOAT32;
  const std::int64_t model_dim = random.between(1, 6), out_dim = random.between(1, 6);
  const bool self = random.chance(50), out_in = random.chance(50);
  if (self) e.kv_len = e.q_len;
  mh_layer_spec spec;
  mh_layer_spec_init(&spec, sizeof spec);
  spec.type = type, spec.heads = e.heads, spec.kv_heads = e.kv_heads;
  spec.order =
      static_cast<mh_weight_order>(random.chance(98) ? MH_ORDER_IN_OUT + (out_in ? 1 : 0) : random.between(-1, 4));
  spec.add_zero_attn = random.chance(20) ? 1 : 0;
  spec.q_norm = static_cast<mh_head_norm>(random.chance(80) ? 0 : random.between(-1, 5));
  if (random.chance(20)) spec.rotary = static_cast<mh_rotary_pairing>(random.between(1, random.chance(90) ? 2 : 4));
  if (random.chance(2)) spec.rotary_dim = random.between(-2, 20);
  if (random.chance(5)) spec.rotary_scaling = random.pick({"linear", "llama3", "yarn", ""});
  room.spoil(spec);
  const auto weight = [&](std::int64_t in, std::int64_t out) {
    return out_in ? room.tensor(type, {out, in}) : room.tensor(type, {in, out});
  };
  mh_layer_weights weights;
  mh_layer_weights_init(&weights, sizeof weights);
  weights.q = weight(model_dim, e.heads * e.head_dim), weights.k = weight(model_dim, e.kv_heads * e.head_dim);
  weights.v = weight(model_dim, e.kv_heads * e.value_dim), weights.out = weight(e.heads * e.value_dim, out_dim);
  if (random.chance(30)) weights.q_bias = room.tensor(type, {e.heads * e.head_dim});
  if (random.chance(10)) weights.bias_k = room.tensor(type, {e.kv_heads * e.head_dim});
  if (weights.bias_k) weights.bias_v = room.tensor(type, {e.kv_heads * e.value_dim});
  if (random.chance(10)) weights.q_norm = room.tensor(type, {e.head_dim});
  mh_layer* layer = nullptr;
  mh_status status = mh_layer_create(&spec, &weights, &layer);
  EXPECT_EQ(status == MH_OK, layer != nullptr) << seed;
  if (!layer) return status;

  const Options attention(room, e);
  mh_layer_options options;
  mh_layer_options_init(&options, sizeof options);
  if (random.chance(60)) options.attention = &attention.options;
  if (random.chance(20)) options.q_positions = room.tensor(MH_INT64, {e.batch, e.q_len});
  if (options.q_positions) options.k_positions = room.tensor(MH_INT64, {e.batch, e.kv_len});
  if (random.chance(20)) options.gates = room.tensor(MH_FLOAT64, {e.heads});
  mh_layer_requests requests;
  mh_layer_requests_init(&requests, sizeof requests);
  if (random.chance(30)) requests.lse = room.tensor(sums, {e.batch, e.heads, e.q_len}, true);
  room.spoil(options), room.spoil(requests);
  const mh_tensor* query = room.tensor(type, {e.batch, e.q_len, model_dim});
  const mh_tensor* key = self ? nullptr : room.tensor(type, {e.batch, e.kv_len, model_dim});
  const mh_tensor* value = self ? nullptr : room.tensor(type, {e.batch, e.kv_len, model_dim});
  const mh_tensor* output = room.tensor(type, {e.batch, e.q_len, out_dim}, true);
  status = mh_layer_forward(layer, query, key, value, output, &options, &requests);
  EXPECT_TRUE(status == MH_OK || room.outputs_unchanged()) << seed << " " << mh_last_error_message();
  mh_layer_destroy(layer);
  return status;
}

// Enough calls are answered, and enough refused in each of these ways, for the test to mean something.
void expect_both(mh_status (*call)(std::uint64_t), int count, std::initializer_list<mh_status> refusals) {
  std::array<int, 10> met{};
  for (int seed = 0; seed < count; ++seed) {
    const mh_status status = call(static_cast<std::uint64_t>(seed));
    ASSERT_GE(status, MH_OK);
    ASSERT_LT(status, MH_INTERNAL_ERROR) << seed << " " << mh_last_error_message();
    ++met[static_cast<std::size_t>(status)];
  }
  EXPECT_GT(met[MH_OK], count / 8);
  for (mh_status status : refusals) EXPECT_GT(met[static_cast<std::size_t>(status)], count / 2000) << status;
}

constexpr int kCalls = 20000;

TEST(CRandom, Attention) {
  expect_both(attention_at_random, kCalls,
              {MH_SHAPE_MISMATCH, MH_BAD_OPTION, MH_UNSUPPORTED, MH_BAD_TYPE, MH_BAD_ARGUMENT});
}
TEST(CRandom, Questions) {
  expect_both(questions_at_random, kCalls, {MH_SHAPE_MISMATCH, MH_BAD_OPTION, MH_BAD_ARGUMENT});
}
TEST(CRandom, Layer) {
  expect_both(layer_at_random, kCalls / 2, {MH_SHAPE_MISMATCH, MH_BAD_OPTION, MH_BAD_TYPE, MH_BAD_ARGUMENT});
}

}  // namespace
}  // namespace multihead::testing

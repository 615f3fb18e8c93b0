// SPDX-License-Identifier: Apache-2.0
// Multi-head attention as a layer: project, split heads, attend, concatenate, project (Vaswani et al. 2017, 3.2.2).
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <tuple>

#include "core/parallel.hpp"
#include "core/scratch.hpp"
#include "core/validate.hpp"
#include "kernels/matmul.hpp"
#include "kernels/operands.hpp"
#include "kernels/schedule.hpp"
#include "kernels/weights.hpp"
#include "multihead/layer.hpp"

namespace multihead {

namespace {

// The widths of one call.
struct Extents {
  std::int64_t n, model_dim, qk_width, v_width, out_dim;
  std::int64_t heads;
  std::optional<Target> target;

  AttentionShape attention(Type type) const { return {type, 1, heads, heads, n, n, qk_width / heads, v_width / heads}; }
};

AttentionOptions attention_options(const LayerOptions& options) {
  AttentionOptions attention;
  attention.threads = options.threads;
  attention.parallel_for = options.parallel_for;
  attention.target = options.target;
  return attention;
}

// How much of it a call takes, found once.
template <class T>
struct BufferSizes {
  std::size_t worker, workers;  // bytes of one, and as many as the widest step has tasks for
  std::size_t pass = 0;         // bytes of a pass over all rows, only where weights are asked for
  bool weights;

  BufferSizes(const Extents& e, const KernelTable& table, int threads, bool wants_weights) : weights(wants_weights) {
    const TaskNeeds needs{.head_dim = e.qk_width / e.heads, .value_dim = e.v_width / e.heads, .type = kTypeOf<T>};
    worker = round_to_line(attention_scratch_elements(needs) * sizeof(T));
    if (table.tiles || e.n > kRowBlock) {  // a task may need more, keep blocks for the next or have others beside it
      const AttentionShape shape = e.attention(kTypeOf<T>);
      const AttentionOptions options{.target = e.target};
      worker = Schedule<T>(shape, options).task_bytes(false);
    }
    worker = std::max(worker, product_scratch<T>());
    const std::int64_t blocks = blocks_of(e.n);
    const std::int64_t projections = 2 * product_tasks(e.n, e.qk_width) + product_tasks(e.n, e.v_width);
    const std::int64_t most = std::max({e.heads * blocks, projections, product_tasks(e.n, e.out_dim)});
    workers = static_cast<std::size_t>(std::min<std::int64_t>(threads, most));
    if (!weights) return;
    AttentionOptions options;  // each head by itself is the most that a pass may take
    options.threads = threads;
    options.target = e.target;
    pass = WeightsPass<T>(e.attention(kTypeOf<T>), options, {}).bytes();
  }
  std::size_t bytes(const Extents& e) const {
    const auto lines = [](std::int64_t elements) {
      return round_to_line(static_cast<std::size_t>(elements) * sizeof(T));
    };
    return 2 * lines(e.n * e.qk_width) + 2 * lines(e.n * e.v_width) + (weights ? 2 * lines(e.heads * e.n) : 0) +
           workers * worker + pass;
  }
};

// Where one call keeps what lies between X and the output.
template <class T>
struct Buffers {
  T *q, *k, *v;             // (n, qk_width), (n, qk_width), (n, v_width): heads side by side
  T* concat;                // (n, v_width)
  T *row_max, *row_sum;     // (heads, n), only where weights are asked for
  std::byte* task_scratch;  // for each worker
  std::byte* weights_pass;  // only where weights are asked for

  Buffers(Scratch& scratch, const Extents& e, const BufferSizes<T>& sizes) {
    const auto take = [&](std::int64_t elements) { return scratch.take<T>(static_cast<std::size_t>(elements)); };
    q = take(e.n * e.qk_width), k = take(e.n * e.qk_width);
    v = take(e.n * e.v_width), concat = take(e.n * e.v_width);
    row_max = sizes.weights ? take(e.heads * e.n) : nullptr;
    row_sum = sizes.weights ? take(e.heads * e.n) : nullptr;
    task_scratch = scratch.take<std::byte>(sizes.workers * sizes.worker);
    weights_pass = scratch.take<std::byte>(sizes.pass);
  }
};

// (n, heads * width) as (1, heads, n, width).
template <class T>
View4<T> split_heads(T* data, std::int64_t n, std::int64_t heads, std::int64_t all) {
  const std::int64_t width = all / heads;
  return {data, {1, heads, n, width}, {n * all, width, all, 1}};
}

void check_matrix(const char* function, const Operand& matrix) {
  check_view(function, matrix);
  check_contiguous(function, matrix);
}

// A weight may be contiguous along either axis: [in, out] as it stands, or the transposed view of an [out, in] one.
void check_weight(const char* function, const Operand& weight, std::int64_t in, const char* in_name) {
  check_view(function, weight);
  if (weight.extents[0] > 1 && weight.extents[1] > 1 && weight.strides[0] != 1 && weight.strides[1] != 1)
    fail(ErrorCode::shape_mismatch, std::string(function) + ": " + weight.name + " has strides " +
                                        std::to_string(weight.strides[0]) + " and " +
                                        std::to_string(weight.strides[1]) + "; one of them must be 1");
  check_equal(function, weight.name, "has input width", weight.extents[0], in_name, in);
}

void check_extents(const char* function, const Extents& e, int threads) {
  check_between(function, "num_heads", e.heads, 1, std::numeric_limits<int>::max());
  for (const auto& [name, per_head, width] :
       {std::tuple{"Wq", "head_dim", e.qk_width}, std::tuple{"Wv", "value_dim", e.v_width}}) {
    if (width % e.heads != 0)
      fail(ErrorCode::shape_mismatch, std::string(function) + ": " + name + " has output width " +
                                          std::to_string(width) + ", num_heads is " + std::to_string(e.heads) +
                                          "; num_heads must divide it");
    check_between(function, per_head, width / e.heads, 1, kMaxHeadDim);
  }
  check_between(function, "threads", threads, 1, 1 << 16);
  // The projections are kept between the steps: views of stride 0 could ask for any number of them.
  constexpr std::int64_t kMost = std::int64_t{1} << 44;
  check_between(function, "the number of X's rows", e.n, 0, kMost / std::max(e.qk_width, e.v_width));
}

template <class T>
struct Projections {
  MatrixView<const T> X, Wq, Wk, Wv;
};

template <class T>
Extents check_projections(const char* function, const Projections<T>& in, std::int64_t heads,
                          const LayerOptions& options) {
  const auto& [X, Wq, Wk, Wv] = in;
  check_matrix(function, operand("X", X));
  check_weight(function, operand("Wq", Wq), X.extent(1), "X has model_dim");
  check_weight(function, operand("Wk", Wk), X.extent(1), "X has model_dim");
  check_weight(function, operand("Wv", Wv), X.extent(1), "X has model_dim");
  check_equal(function, "Wk", "has output width", Wk.extent(1), "Wq has", Wq.extent(1));
  const Extents extents{X.extent(0), X.extent(1), Wq.extent(1), Wv.extent(1), 0, heads, options.target};
  check_extents(function, extents, options.threads);
  return extents;
}

// The first operand is written, the others are read; the last of them has as many columns.
void check_result(const char* function, std::span<const Operand> operands, const Extents& e) {
  const Operand &output = operands[0], &last = operands.back();
  check_matrix(function, output);
  check_equal(function, output.name, "has rows", output.extents[0], "X has", e.n);
  if (output.extents[1] != last.extents[1])  // only then the words are put together
    check_equal(function, output.name, "has columns", output.extents[1], std::string(last.name) + " has",
                last.extents[1]);
  check_writable(function, output);
  for (const Operand& input : operands.subspan(1)) check_apart(function, output, input);
}

template <class T>
void check_weights_out(const char* function, const HeadWeights<T>& weights, const Extents& e,
                       std::span<const Operand> others, const char* mean = "weights.mean") {
  const auto check = [&](const Operand& view) {
    check_view(function, view);
    check_writable(function, view);
    for (const Operand& other : others) check_apart(function, view, other);
    const std::size_t rank = view.extents.size();
    if (rank == 3) check_equal(function, view.name, "has heads", view.extents[0], "num_heads is", e.heads);
    check_equal(function, view.name, "has q_len", view.extents[rank - 2], "X has", e.n);
    check_equal(function, view.name, "has kv_len", view.extents[rank - 1], "X has", e.n);
  };
  if (given(weights.per_head)) check(operand("weights.per_head", weights.per_head));
  if (given(weights.mean)) check(operand(mean, weights.mean));
  check_apart(function, operand(mean, weights.mean), operand("weights.per_head", weights.per_head));
}

// (heads, n, n) as a batch of one.
template <class T>
WeightsRequest<T> request_of(const HeadWeights<T>& weights, std::int64_t n) {
  WeightsRequest<T> request;
  const View3<T>& heads = weights.per_head;
  if (heads.data())
    request.per_head =
        View4<T>(heads.data(), {1, heads.extent(0), n, n}, {0, heads.stride(0), heads.stride(1), heads.stride(2)});
  const MatrixView<T>& mean = weights.mean;
  if (mean.data()) request.mean = View3<T>(mean.data(), {1, n, n}, {0, mean.stride(0), mean.stride(1)});
  return request;
}

// Everything between X and the concatenated heads, (n, v_width), which it writes to concat.
template <class T>
void run_heads(const Projections<T>& in, const Extents& e, const LayerOptions& options, const KernelTable& table,
               const Buffers<T>& buffers, MatrixView<T> concat, const HeadWeights<T>& weights) {
  const std::array<Product<T>, 3> projections{{
      {in.X, in.Wq, MatrixView<T>(buffers.q, {e.n, e.qk_width})},
      {in.X, in.Wk, MatrixView<T>(buffers.k, {e.n, e.qk_width})},
      {in.X, in.Wv, MatrixView<T>(buffers.v, {e.n, e.v_width})},
  }};
  run_products<T>(projections, options.threads, options.parallel_for, table, buffers.task_scratch);

  const std::int64_t value_dim = e.v_width / e.heads;
  const View4<T> heads_out(concat.data(), {1, e.heads, e.n, value_dim}, {0, value_dim, concat.stride(0), 1});
  AttentionCall<T> call;
  call.q = TypedTensor(split_heads<const T>(buffers.q, e.n, e.heads, e.qk_width));
  call.k = TypedTensor(split_heads<const T>(buffers.k, e.n, e.heads, e.qk_width));
  call.v = TypedTensor(split_heads<const T>(buffers.v, e.n, e.heads, e.v_width));
  call.out = TypedTensor(heads_out);
  call.row_max = buffers.row_max, call.row_sum = buffers.row_sum;
  const AttentionShape shape = e.attention(kTypeOf<T>);
  const AttentionOptions attention = attention_options(options);
  Schedule<T>(shape, attention).run(call, table, buffers.task_scratch);
  if (!buffers.row_max) return;
  const WeightsRequest<T> request = request_of(weights, e.n);
  WeightsPass<T> pass(shape, attention, request);
  pass.prepare("multi_head_attention", buffers.weights_pass);
  pass.run(call, table);
}

constexpr const char* kMultiHead = "multi_head_attention";

template <class T>
Extents check_multi_head(const Projections<T>& in, MatrixView<const T> Wo, int num_heads, const LayerOptions& options) {
  Extents e = check_projections(kMultiHead, in, num_heads, options);
  check_weight(kMultiHead, operand("Wo", Wo), e.v_width, "Wv has output width");
  e.out_dim = Wo.extent(1);
  return e;
}

template <class T>
void multi_head(const Projections<T>& in, MatrixView<const T> Wo, int num_heads, MatrixView<T> output,
                const LayerOptions& options, const HeadWeights<T>& weights) {
  const Extents e = check_multi_head(in, Wo, num_heads, options);
  const std::array<Operand, 6> operands{operand("output", output), operand("X", in.X),   operand("Wq", in.Wq),
                                        operand("Wk", in.Wk),      operand("Wv", in.Wv), operand("Wo", Wo)};
  check_result(kMultiHead, operands, e);
  check_weights_out<T>(kMultiHead, weights, e, operands);

  const KernelTable& table = choose_kernels(options.target);
  const bool wants_weights = weights.per_head.data() || weights.mean.data();
  const BufferSizes<T> sizes(e, table, options.threads, wants_weights);
  Scratch scratch(sizes.bytes(e), options.scratch, kMultiHead);
  const Buffers<T> buffers(scratch, e, sizes);
  const MatrixView<T> concat(buffers.concat, {e.n, e.v_width});
  run_heads(in, e, options, table, buffers, concat, weights);
  const Product<T> last{concat, Wo, output};
  run_products<T>({&last, 1}, options.threads, options.parallel_for, table, buffers.task_scratch);
}

template <class T>
Matrix<T> multi_head(const Projections<T>& in, MatrixView<const T> Wo, int num_heads, const LayerOptions& options) {
  Matrix<T> output(check_multi_head(in, Wo, num_heads, options).n, Wo.extent(1));
  multi_head<T>(in, Wo, num_heads, output, options, {});
  return output;
}

constexpr const char* kOneHead = "self_attention";

template <class T>
void one_head(const Projections<T>& in, MatrixView<T> output, const LayerOptions& options, MatrixView<T> weights) {
  const Extents e = check_projections(kOneHead, in, 1, options);
  const std::array<Operand, 5> operands{operand("output", output), operand("X", in.X), operand("Wq", in.Wq),
                                        operand("Wk", in.Wk), operand("Wv", in.Wv)};
  check_result(kOneHead, operands, e);
  const HeadWeights<T> asked{{}, weights};
  check_weights_out<T>(kOneHead, asked, e, operands, "weights");
  const KernelTable& table = choose_kernels(options.target);
  const bool wants_weights = weights.data();
  const BufferSizes<T> sizes(e, table, options.threads, wants_weights);
  Scratch scratch(sizes.bytes(e), options.scratch, kOneHead);
  const Buffers<T> buffers(scratch, e, sizes);
  run_heads<T>(in, e, options, table, buffers, output, asked);
}

template <class T>
SelfAttention<T> one_head(const Projections<T>& in, const LayerOptions& options) {
  const Extents e = check_projections(kOneHead, in, 1, options);
  SelfAttention<T> result{Matrix<T>(e.n, e.v_width), Matrix<T>(e.n, e.n)};
  one_head<T>(in, result.output, options, result.weights);
  return result;
}

}  // namespace

SelfAttention<float> self_attention(MatrixView<const float> X, MatrixView<const float> Wq, MatrixView<const float> Wk,
                                    MatrixView<const float> Wv, const LayerOptions& options) {
  return one_head<float>({X, Wq, Wk, Wv}, options);
}
SelfAttention<double> self_attention(MatrixView<const double> X, MatrixView<const double> Wq,
                                     MatrixView<const double> Wk, MatrixView<const double> Wv,
                                     const LayerOptions& options) {
  return one_head<double>({X, Wq, Wk, Wv}, options);
}
void self_attention(MatrixView<const float> X, MatrixView<const float> Wq, MatrixView<const float> Wk,
                    MatrixView<const float> Wv, MatrixView<float> output, const LayerOptions& options,
                    MatrixView<float> weights) {
  one_head<float>({X, Wq, Wk, Wv}, output, options, weights);
}
void self_attention(MatrixView<const double> X, MatrixView<const double> Wq, MatrixView<const double> Wk,
                    MatrixView<const double> Wv, MatrixView<double> output, const LayerOptions& options,
                    MatrixView<double> weights) {
  one_head<double>({X, Wq, Wk, Wv}, output, options, weights);
}

void multi_head_attention(MatrixView<const float> X, MatrixView<const float> Wq, MatrixView<const float> Wk,
                          MatrixView<const float> Wv, MatrixView<const float> Wo, int num_heads,
                          MatrixView<float> output, const LayerOptions& options, const HeadWeights<float>& weights) {
  multi_head<float>({X, Wq, Wk, Wv}, Wo, num_heads, output, options, weights);
}
void multi_head_attention(MatrixView<const double> X, MatrixView<const double> Wq, MatrixView<const double> Wk,
                          MatrixView<const double> Wv, MatrixView<const double> Wo, int num_heads,
                          MatrixView<double> output, const LayerOptions& options, const HeadWeights<double>& weights) {
  multi_head<double>({X, Wq, Wk, Wv}, Wo, num_heads, output, options, weights);
}

Matrix<float> multi_head_attention(MatrixView<const float> X, MatrixView<const float> Wq, MatrixView<const float> Wk,
                                   MatrixView<const float> Wv, MatrixView<const float> Wo, int num_heads,
                                   const LayerOptions& options) {
  return multi_head<float>({X, Wq, Wk, Wv}, Wo, num_heads, options);
}
Matrix<double> multi_head_attention(MatrixView<const double> X, MatrixView<const double> Wq,
                                    MatrixView<const double> Wk, MatrixView<const double> Wv,
                                    MatrixView<const double> Wo, int num_heads, const LayerOptions& options) {
  return multi_head<double>({X, Wq, Wk, Wv}, Wo, num_heads, options);
}

std::size_t multi_head_attention_scratch_bytes(std::size_t element_size, std::int64_t n, std::int64_t model_dim,
                                               std::int64_t qk_width, std::int64_t v_width, std::int64_t out_dim,
                                               int num_heads, const LayerOptions& options, bool weights) {
  constexpr const char* kName = "multi_head_attention_scratch_bytes";
  if (element_size != sizeof(float) && element_size != sizeof(double))
    fail(ErrorCode::bad_option,
         std::string(kName) + ": element_size is " + std::to_string(element_size) + "; it must be 4 or 8");
  const Extents e{n, model_dim, qk_width, v_width, out_dim, num_heads, options.target};
  check_between(kName, "model_dim", model_dim, 0, std::int64_t{1} << 44);
  check_between(kName, "out_dim", out_dim, 0, std::int64_t{1} << 44);
  check_extents(kName, e, options.threads);
  const KernelTable& table = choose_kernels(options.target);
  return (element_size == sizeof(float) ? BufferSizes<float>(e, table, options.threads, weights).bytes(e)
                                        : BufferSizes<double>(e, table, options.threads, weights).bytes(e)) +
         kCacheLine;
}

}  // namespace multihead

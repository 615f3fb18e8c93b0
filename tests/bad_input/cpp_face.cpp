// SPDX-License-Identifier: Apache-2.0
// A case of the table as a call of the C++ library, where its types let it be said.
#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <optional>
#include <span>

#include "multihead/encoder.hpp"
#include "multihead/multihead.hpp"
#include "problem.hpp"

namespace bad_input {

namespace {

using namespace multihead;

template <class T>
constexpr mh_type kCode = kTypeOf<T> == Type::float32    ? MH_FLOAT32
                          : kTypeOf<T> == Type::float64  ? MH_FLOAT64
                          : kTypeOf<T> == Type::bfloat16 ? MH_BFLOAT16
                                                         : MH_FLOAT16;

template <class T, int Rank>
View<T, Rank> view(const Problem& problem, const std::string& name) {
  const mh_tensor* const tensor = problem.tensor(name);
  if (!tensor) throw CannotBeSaid("a view is never missing; one without extents asks for nothing");
  if (tensor->rank != Rank) throw CannotBeSaid("the rank of a view is a part of its type");
  if (tensor->type != kCode<std::remove_const_t<T>>) throw CannotBeSaid("no overload takes these types");
  typename View<T, Rank>::Extents extents{}, strides{};
  for (std::size_t axis = 0; axis < Rank; ++axis) {
    extents[axis] = tensor->shape[axis];
    strides[axis] = tensor->strides[axis];
  }
  return {static_cast<T*>(tensor->data), extents, strides};
}

template <class T>
std::span<const T> list(Problem& problem, const Json& holder, const char* name, mh_type type) {
  const mh_tensor* const tensor = problem.list(holder, name, type);
  if (!tensor) return {};
  if (tensor->rank != 1 || tensor->type != type || tensor->strides[0] != 1)
    throw CannotBeSaid("a list is a span of its type");
  if (tensor->shape[0] == 0) throw CannotBeSaid("an empty span is not given");
  return {static_cast<const T*>(tensor->data), static_cast<std::size_t>(tensor->shape[0])};
}

template <class Option, class T>
Option broadcast(Problem& problem, const char* name, mh_type type) {
  const mh_tensor* const tensor = problem.list(problem.options(), name, type);
  if (!tensor) return {};
  if (tensor->type != type) throw CannotBeSaid("a mask and a bias have the types of their views");
  if (tensor->rank != 4) throw CannotBeSaid("the table's masks have rank 4; another is a part of its type");
  const auto& [data, code, rank, shape, strides] = *tensor;
  return View<const T, 4>(static_cast<const T*>(data), {shape[0], shape[1], shape[2], shape[3]},
                          {strides[0], strides[1], strides[2], strides[3]});
}

MatrixView<const std::int64_t> matrix(Problem& problem, const Json& holder, const char* name) {
  const mh_tensor* const tensor = problem.list(holder, name, MH_INT64);
  if (!tensor) return {};
  if (tensor->rank != 2 || tensor->type != MH_INT64) throw CannotBeSaid("segments and positions are matrices of int64");
  return {static_cast<const std::int64_t*>(tensor->data),
          {tensor->shape[0], tensor->shape[1]},
          {tensor->strides[0], tensor->strides[1]}};
}

Alignment alignment_of(Problem& problem) {
  const Json& given = problem.options();
  if (given.contains("query_offset")) return Alignment::at(given["query_offset"].get<std::int64_t>());
  if (given.contains("query_offsets"))
    return Alignment::at(list<std::int64_t>(problem, given, "query_offsets", MH_INT64));
  const std::string name = given.value("alignment", "unnamed");
  return name == "top_left" ? Alignment::top_left() : name == "bottom_right" ? Alignment::bottom_right() : Alignment();
}

void set_run(const Problem& problem, int& threads, std::optional<Target>& target) {
  threads = problem.run().value("threads", 1);
  if (problem.run().contains("target")) target = target_from_name(problem.run()["target"].get<std::string>());
}

AttentionOptions options_of(Problem& problem) {
  const Json& given = problem.options();
  AttentionOptions options;
  set_run(problem, options.threads, options.target);
  options.causal = given.value("causal", false);
  options.alignment = alignment_of(problem);
  if (given.contains("scale")) options.scale = number(given, "scale", 0);
  options.softcap = number(given, "softcap", 0);
  options.dropout.probability = number(given, "dropout", 0);
  options.dropout.seed = given.value("dropout_seed", std::uint64_t{0});
  if (given.contains("window")) options.window = {given["window"][0], given["window"][1]};
  options.window.first = given.value("window_first", std::int64_t{0});
  options.prefixes = list<std::int64_t>(problem, given, "prefixes", MH_INT64);
  options.lengths = list<std::int64_t>(problem, given, "lengths", MH_INT64);
  options.cu_seqlens_q = list<std::int64_t>(problem, given, "cu_seqlens_q", MH_INT64);
  options.cu_seqlens_k = list<std::int64_t>(problem, given, "cu_seqlens_k", MH_INT64);
  options.q_segments = matrix(problem, given, "q_segments");
  options.kv_segments = matrix(problem, given, "kv_segments");
  options.keep_mask = broadcast<Mask, std::uint8_t>(problem, "keep_mask", MH_BOOL);
  options.drop_mask = broadcast<Mask, std::uint8_t>(problem, "drop_mask", MH_BOOL);
  options.bias = broadcast<Bias, float>(problem, "bias", MH_FLOAT32);
  options.alibi_slopes = list<double>(problem, given, "alibi_slopes", MH_FLOAT64);
  options.sinks = list<double>(problem, given, "sinks", MH_FLOAT64);
  if (const mh_tensor* table = problem.list(given, "relative_bias", MH_FLOAT32)) {
    if (table->rank != 2 || table->type != MH_FLOAT32) throw CannotBeSaid("a table is a matrix of its type");
    options.relative_bias = {
        View<const float, 2>(static_cast<const float*>(table->data), {table->shape[0], table->shape[1]}), true,
        given.value("relative_max_distance", std::int64_t{128})};
  }
  return options;
}

void attention(Problem& problem) {
  const AttentionOptions options = options_of(problem);
  const auto run = [&]<class T>(T) {
    View3<Sum<T>> lse;
    if (problem.tensor("lse")) lse = view<Sum<T>, 3>(problem, "lse");
    multihead::attention(view<const T, 4>(problem, "q"), view<const T, 4>(problem, "k"), view<const T, 4>(problem, "v"),
                         view<T, 4>(problem, "out"), lse, options);
  };
  if (!problem.tensor("q")) throw CannotBeSaid("a view is never missing; one without extents asks for nothing");
  switch (problem.tensor("q")->type) {
    case MH_FLOAT32:
      return run(0.0f);
    case MH_FLOAT64:
      return run(0.0);
    case MH_BFLOAT16:
      return run(BFloat16{});
    case MH_FLOAT16:
      return run(Float16{});
    default:
      throw CannotBeSaid("no overload takes these types");
  }
}

void multi_head_attention(Problem& problem) {
  LayerOptions options;
  set_run(problem, options.threads, options.target);
  const auto matrix = [&](const char* name) { return view<const double, 2>(problem, name); };
  multihead::multi_head_attention(matrix("X"), matrix("Wq"), matrix("Wk"), matrix("Wv"), matrix("Wo"),
                                  problem.call().at("num_heads").get<int>(), view<double, 2>(problem, "output"),
                                  options);
}

template <int Rank>
View<const float, Rank> given(const Problem& problem, const char* name) {
  return problem.tensor(name) ? view<const float, Rank>(problem, name) : View<const float, Rank>();
}

std::span<const float> given_list(const Problem& problem, const char* name) {
  const View<const float, 1> values = given<1>(problem, name);
  return {values.data(), static_cast<std::size_t>(values.extent(0))};
}

template <class T, int Rank>
View<T, Rank> asked(const Problem& problem, const char* name) {
  return problem.tensor(name) ? view<T, Rank>(problem, name) : View<T, Rank>();
}

void attention_backward(Problem& problem) {
  const AttentionOptions options = options_of(problem);
  AttentionForward<float> forward;
  forward.q = view<const float, 4>(problem, "q"), forward.k = view<const float, 4>(problem, "k");
  forward.v = view<const float, 4>(problem, "v"), forward.out = view<const float, 4>(problem, "out");
  forward.lse = view<const float, 3>(problem, "lse"), forward.d_out = view<const float, 4>(problem, "d_out");
  forward.d_lse = given<3>(problem, "d_lse");
  AttentionGradients<float> gradients;
  gradients.q = asked<float, 4>(problem, "d_q"), gradients.k = asked<float, 4>(problem, "d_k");
  gradients.v = asked<float, 4>(problem, "d_v"), gradients.bias = asked<float, 4>(problem, "d_bias");
  if (const mh_tensor* const sinks = problem.tensor("d_sinks"))
    gradients.sinks = {static_cast<double*>(sinks->data), static_cast<std::size_t>(sinks->shape[0])};
  multihead::attention_backward(forward, gradients, options);
}

void statistics(Problem& problem) {
  const Json& call = problem.call();
  StatisticsRequest<float> request;
  request.offsets = list<std::int64_t>(problem, call, "offsets", MH_INT64);
  request.keys = list<std::int64_t>(problem, call, "keys", MH_INT64);
  request.q_tokens = matrix(problem, call, "q_tokens");
  request.kv_tokens = matrix(problem, call, "kv_tokens");
  request.bin = call.value("bin", std::int64_t{0});
  request.norms = given<3>(problem, "norms");
  request.plain.entropy = asked<float, 3>(problem, "entropy");
  request.plain.offset_mass = asked<float, 4>(problem, "offset_mass");
  request.plain.key_mass = asked<float, 4>(problem, "key_mass");
  request.plain.duplicate_mass = asked<float, 3>(problem, "duplicate_mass");
  request.plain.map = asked<float, 4>(problem, "map");
  request.norm_weighted.entropy = asked<float, 3>(problem, "weighted");
  if (const mh_tensor* const top = problem.tensor("top_keys"))
    request.plain.top_keys = {static_cast<std::int64_t*>(top->data),
                              {top->shape[0], top->shape[1], top->shape[2], top->shape[3]}};
  multihead::attention(view<const float, 4>(problem, "q"), view<const float, 4>(problem, "k"),
                       view<const float, 4>(problem, "v"), view<float, 4>(problem, "out"), View3<float>{},
                       WeightsRequest<float>{}, request, options_of(problem));
}

void layer(Problem& problem) {
  const Json& call = problem.call();
  MultiHeadSpec spec;
  spec.heads = call.at("heads");
  if (call.contains("kv_heads")) spec.kv_heads = call["kv_heads"].get<std::int64_t>();
  const std::string order = call.value("order", "in_out");
  if (order == "in_out") spec.order = WeightOrder::in_out;
  if (order == "out_in") spec.order = WeightOrder::out_in;
  if (call.contains("rotary_dim")) {
    spec.rotary = RotaryOptions{};
    spec.rotary->rotary_dim = call["rotary_dim"].get<std::int64_t>();
  }
  MultiHeadWeights<float> weights;
  weights.q = given<2>(problem, "q");
  weights.k = given<2>(problem, "k");
  weights.v = given<2>(problem, "v");
  weights.out = given<2>(problem, "out");
  weights.q_bias = given_list(problem, "q_bias");
  weights.bias_k = given_list(problem, "bias_k");
  const MultiHeadAttention<float> created(spec, weights);
  MultiHeadOptions options;
  options.attention = options_of(problem);
  options.gates = list<double>(problem, call, "gates", MH_FLOAT64);
  options.q_positions = matrix(problem, call, "q_positions");
  options.k_positions = matrix(problem, call, "k_positions");
  const auto query = view<const float, 3>(problem, "query");
  const auto output = view<float, 3>(problem, "output");
  if (problem.tensor("key") || problem.tensor("value"))
    created.forward(query, view<const float, 3>(problem, "key"), view<const float, 3>(problem, "value"), output,
                    options);
  else
    created.forward(query, output, options);
}

void explain(Problem& problem) {
  const Json& call = problem.call();
  AttentionShape shape;
  shape.batch = call.at("batch");
  shape.heads = call.at("heads");
  shape.kv_heads = call.at("kv_heads");
  shape.q_len = call.at("q_len");
  shape.kv_len = call.at("kv_len");
  shape.head_dim = call.at("head_dim");
  shape.value_dim = call.at("value_dim");
  static_cast<void>(multihead::explain(shape, options_of(problem)));
}

void encoder(Problem& problem) {
  LayerOptions options;
  set_run(problem, options.threads, options.target);
  const auto type = [&](const char* name) {
    constexpr Type kTypes[] = {Type::float32, Type::float64, Type::bfloat16, Type::float16};
    return *std::find_if(std::begin(kTypes), std::end(kTypes),
                         [&](Type t) { return type_name(t) == problem.call().value(name, "float32"); });
  };
  const Encoder opened(problem.folder(), {.precision = type("precision"), .products = type("products")});
  EncoderInput input;
  input.ids = list<std::int64_t>(problem, problem.call(), "ids", MH_INT64);
  input.cu_seqlens = list<std::int64_t>(problem, problem.call(), "cu_seqlens", MH_INT64);
  input.token_types = list<std::int64_t>(problem, problem.call(), "token_types", MH_INT64);
  if (const mh_tensor* const gates = problem.list(problem.call(), "gates", MH_FLOAT64))
    input.gates = {static_cast<const double*>(gates->data), {gates->shape[0], gates->shape[1]}};
  opened.forward(input, view<float, 2>(problem, "output"), options);
}

void called(const std::string& call, Problem& problem) {
  if (call == "attention") return attention(problem);
  if (call == "attention_backward") return attention_backward(problem);
  if (call == "statistics") return statistics(problem);
  if (call == "multi_head_attention") return multi_head_attention(problem);
  if (call == "layer") return layer(problem);
  if (call == "explain") return explain(problem);
  if (call == "encoder") return encoder(problem);
  throw std::runtime_error("no call is named " + call);
}

}  // namespace

Outcome run_cpp(const std::string& call, Problem& problem) {
  try {
    called(call, problem);
    return {"ok", ""};
  } catch (const Error& error) {
    return {std::string(error_name(error.code())), error.what()};
  }
}

}  // namespace bad_input

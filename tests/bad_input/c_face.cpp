// SPDX-License-Identifier: Apache-2.0
// A case of the table as a call of the C ABI.
#include <cmath>
#include <functional>
#include <memory>

#include "problem.hpp"

namespace bad_input {

namespace {

mh_run_options run_of(const Problem& problem) {
  mh_run_options run;
  mh_run_options_init(&run, sizeof run);
  run.threads = problem.run().value("threads", 1);
  return run;
}

mh_attention_options options_of(Problem& problem, const mh_run_options& run) {
  const Json& given = problem.options();
  mh_attention_options options;
  mh_attention_options_init(&options, sizeof options);
  const std::array<const char*, 3> names{"unnamed", "top_left", "bottom_right"};
  const std::string alignment = given.value("alignment", "unnamed");
  for (std::size_t at = 0; at < names.size(); ++at)
    if (alignment == names[at]) options.alignment = static_cast<mh_alignment>(at);
  options.causal = given.value("causal", false);
  options.has_scale = given.contains("scale");
  options.scale = number(given, "scale", 0);
  options.softcap = number(given, "softcap", 0);
  options.dropout = number(given, "dropout", 0);
  options.dropout_seed = given.value("dropout_seed", std::uint64_t{0});
  if (given.contains("query_offset")) {
    options.alignment = MH_ALIGN_OFFSET;
    options.query_offset = given["query_offset"];
  }
  if (given.contains("query_offsets")) options.alignment = MH_ALIGN_OFFSETS;
  options.query_offsets = problem.list(given, "query_offsets", MH_INT64);
  if (given.contains("window")) {
    options.window_left = given["window"][0];
    options.window_right = given["window"][1];
  }
  options.window_first = given.value("window_first", std::int64_t{0});
  options.prefixes = problem.list(given, "prefixes", MH_INT64);
  options.lengths = problem.list(given, "lengths", MH_INT64);
  options.cu_seqlens_q = problem.list(given, "cu_seqlens_q", MH_INT64);
  options.cu_seqlens_k = problem.list(given, "cu_seqlens_k", MH_INT64);
  options.q_segments = problem.list(given, "q_segments", MH_INT64);
  options.kv_segments = problem.list(given, "kv_segments", MH_INT64);
  options.keep_mask = problem.list(given, "keep_mask", MH_BOOL);
  options.drop_mask = problem.list(given, "drop_mask", MH_BOOL);
  options.bias = problem.list(given, "bias", MH_FLOAT32);
  options.alibi_slopes = problem.list(given, "alibi_slopes", MH_FLOAT64);
  options.sinks = problem.list(given, "sinks", MH_FLOAT64);
  options.relative_bias = problem.list(given, "relative_bias", MH_FLOAT32);
  options.relative_max_distance = given.value("relative_max_distance", std::int64_t{128});
  options.run = &run;
  return options;
}

Outcome outcome(mh_status status) {
  if (status == MH_OK) return {"ok", ""};
  return {mh_status_string(status), mh_last_error_message()};
}

Outcome attention(Problem& problem) {
  const mh_run_options run = run_of(problem);
  const mh_attention_options options = options_of(problem, run);
  return outcome(mh_attention(problem.tensor("q"), problem.tensor("k"), problem.tensor("v"), problem.tensor("out"),
                              problem.tensor("lse"), nullptr, &options));
}

Outcome attention_backward(Problem& problem) {
  const mh_run_options run = run_of(problem);
  const mh_attention_options options = options_of(problem, run);
  mh_attention_gradients gradients;
  mh_attention_gradients_init(&gradients, sizeof gradients);
  gradients.q = problem.tensor("d_q");
  gradients.k = problem.tensor("d_k");
  gradients.v = problem.tensor("d_v");
  gradients.bias = problem.tensor("d_bias");
  gradients.sinks = problem.tensor("d_sinks");
  return outcome(mh_attention_backward(problem.tensor("q"), problem.tensor("k"), problem.tensor("v"),
                                       problem.tensor("out"), problem.tensor("lse"), problem.tensor("d_out"),
                                       problem.tensor("d_lse"), &gradients, &options));
}

Outcome statistics(Problem& problem) {
  const mh_run_options run = run_of(problem);
  const mh_attention_options options = options_of(problem, run);
  const Json& call = problem.call();
  mh_row_statistics plain, weighted;
  mh_row_statistics_init(&plain, sizeof plain);
  mh_row_statistics_init(&weighted, sizeof weighted);
  plain.entropy = problem.tensor("entropy");
  plain.offset_mass = problem.tensor("offset_mass");
  plain.key_mass = problem.tensor("key_mass");
  plain.duplicate_mass = problem.tensor("duplicate_mass");
  plain.top_keys = problem.tensor("top_keys");
  plain.map = problem.tensor("map");
  weighted.entropy = problem.tensor("weighted");
  mh_statistics_request request;
  mh_statistics_request_init(&request, sizeof request);
  request.offsets = problem.list(call, "offsets", MH_INT64);
  request.keys = problem.list(call, "keys", MH_INT64);
  request.q_tokens = problem.list(call, "q_tokens", MH_INT64);
  request.kv_tokens = problem.list(call, "kv_tokens", MH_INT64);
  request.norms = problem.tensor("norms");
  request.bin = call.value("bin", std::int64_t{0});
  request.plain = &plain;
  request.norm_weighted = &weighted;
  return outcome(mh_attention_statistics(problem.tensor("q"), problem.tensor("k"), problem.tensor("v"),
                                         problem.tensor("out"), nullptr, nullptr, &request, &options));
}

Outcome multi_head_attention(Problem& problem) {
  const mh_run_options run = run_of(problem);
  return outcome(mh_multi_head_attention(problem.tensor("X"), problem.tensor("Wq"), problem.tensor("Wk"),
                                         problem.tensor("Wv"), problem.tensor("Wo"), problem.call().at("num_heads"),
                                         problem.tensor("output"), nullptr, nullptr, &run));
}

Outcome layer(Problem& problem) {
  const mh_run_options run = run_of(problem);
  const mh_attention_options attention = options_of(problem, run);
  mh_layer_spec spec;
  mh_layer_spec_init(&spec, sizeof spec);
  const Json& call = problem.call();
  spec.type = MH_FLOAT32;
  spec.heads = call.at("heads");
  spec.kv_heads = call.value("kv_heads", std::int64_t{0});
  const std::string order = call.value("order", "in_out");
  spec.order = order == "in_out" ? MH_ORDER_IN_OUT : order == "out_in" ? MH_ORDER_OUT_IN : MH_ORDER_UNNAMED;
  spec.rotary = call.contains("rotary_dim") ? MH_ROTARY_HALF_SPLIT : MH_ROTARY_NONE;
  spec.rotary_dim = call.value("rotary_dim", std::int64_t{0});
  mh_layer_weights weights;
  mh_layer_weights_init(&weights, sizeof weights);
  weights.q = problem.tensor("q");
  weights.k = problem.tensor("k");
  weights.v = problem.tensor("v");
  weights.out = problem.tensor("out");
  weights.q_bias = problem.tensor("q_bias");
  weights.bias_k = problem.tensor("bias_k");
  mh_layer* created = nullptr;
  const mh_status status = mh_layer_create(&spec, &weights, &created);
  const std::unique_ptr<mh_layer, void (*)(mh_layer*)> owner(created, mh_layer_destroy);
  if (status != MH_OK) return created ? Outcome{"a handle in spite of an error", ""} : outcome(status);
  mh_layer_options options;
  mh_layer_options_init(&options, sizeof options);
  options.attention = &attention;
  options.gates = problem.list(call, "gates", MH_FLOAT64);
  options.q_positions = problem.list(call, "q_positions", MH_INT64);
  options.k_positions = problem.list(call, "k_positions", MH_INT64);
  return outcome(mh_layer_forward(created, problem.tensor("query"), problem.tensor("key"), problem.tensor("value"),
                                  problem.tensor("output"), &options, nullptr));
}

Outcome explain(Problem& problem) {
  const mh_run_options run = run_of(problem);
  const mh_attention_options options = options_of(problem, run);
  mh_attention_shape shape;
  mh_attention_shape_init(&shape, sizeof shape);
  const Json& call = problem.call();
  const std::array<std::pair<const char*, std::int64_t*>, 7> fields{{{"batch", &shape.batch},
                                                                     {"heads", &shape.heads},
                                                                     {"kv_heads", &shape.kv_heads},
                                                                     {"q_len", &shape.q_len},
                                                                     {"kv_len", &shape.kv_len},
                                                                     {"head_dim", &shape.head_dim},
                                                                     {"value_dim", &shape.value_dim}}};
  for (const auto& [name, field] : fields) *field = call.at(name);
  mh_attention_plan plan;
  mh_attention_plan_init(&plan, sizeof plan);
  return outcome(mh_explain(&shape, &options, &plan));
}

Outcome encoder(Problem& problem) {
  const mh_run_options run = run_of(problem);
  mh_encoder_options options;
  mh_encoder_options_init(&options, sizeof options);
  options.precision = type_of(problem.call().value("precision", "float32"));
  options.products = type_of(problem.call().value("products", "float32"));
  mh_encoder* opened = nullptr;
  const mh_status status = mh_encoder_open_with(problem.folder().c_str(), &options, &opened);
  const std::unique_ptr<mh_encoder, void (*)(mh_encoder*)> owner(opened, mh_encoder_destroy);
  if (status != MH_OK) return opened ? Outcome{"a handle in spite of an error", ""} : outcome(status);
  mh_encoder_call call;
  mh_encoder_call_init(&call, sizeof call);
  call.ids = problem.list(problem.call(), "ids", MH_INT64);
  call.cu_seqlens = problem.list(problem.call(), "cu_seqlens", MH_INT64);
  call.token_types = problem.list(problem.call(), "token_types", MH_INT64);
  call.gates = problem.list(problem.call(), "gates", MH_FLOAT64);
  return outcome(mh_encoder_forward(opened, &call, problem.tensor("output"), &run));
}

}  // namespace

Outcome run_c(const std::string& call, Problem& problem) {
  mh_target target = MH_TARGET_CHOOSE;
  if (problem.run().contains("target")) {  // a name that is none ends here; the table has no others
    const mh_status status = mh_target_from_name(problem.run()["target"].get<std::string>().c_str(), &target);
    if (status != MH_OK) return outcome(status);
  }
  if (call == "attention") return attention(problem);
  if (call == "attention_backward") return attention_backward(problem);
  if (call == "statistics") return statistics(problem);
  if (call == "multi_head_attention") return multi_head_attention(problem);
  if (call == "layer") return layer(problem);
  if (call == "explain") return explain(problem);
  if (call == "encoder") return encoder(problem);
  throw std::runtime_error("no call is named " + call);
}

}  // namespace bad_input

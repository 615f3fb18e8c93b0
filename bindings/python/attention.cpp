// SPDX-License-Identifier: Apache-2.0
// attention(), attention_weights(), merge() and explain() of the module.
#include "faces.hpp"
#include "inputs.hpp"
#include "options.hpp"
#include "statistics.hpp"

namespace face {
namespace {

// (out), (out, lse), (out, weights), (out, lse, weights), each with statistics last: what was asked for.
nb::object answer(const Result& out, const Result& lse, const Weights& weights, const Statistics& statistics) {
  const bool with_lse = lse.object.is_valid();
  if (statistics.wanted()) {
    nb::list results;
    results.append(out.object);
    if (with_lse) results.append(lse.object);
    if (weights.wanted()) results.append(weights.result());
    results.append(statistics.result());
    return nb::tuple(results);
  }
  if (with_lse && weights.wanted()) return nb::make_tuple(out.object, lse.object, weights.result());
  if (with_lse) return nb::make_tuple(out.object, lse.object);
  if (weights.wanted()) return nb::make_tuple(out.object, weights.result());
  return out.object;
}

// call: (layout, out, return_lse, return_weights, return_statistics).
nb::object attention(nb::handle q, nb::handle k, nb::handle v, const nb::tuple& call, const nb::dict& given) {
  const char* const name = "attention";
  Inputs inputs;
  inputs.read_layout(call[0], name);
  inputs.read_first(q, {name, "q"});
  inputs.read(k, inputs.k, {name, "k"});
  inputs.read(v, inputs.v, {name, "v"});
  Options options(name, given);
  options.run().set_work(inputs.work());
  Weights weights;
  weights.read(call[3], name);
  Statistics statistics;
  statistics.read(call[4], name);
  const bool with_lse = flag(call[2], {name, "return_lse"});
  Result out, lse;
  inputs.make_out(out, call[1], {name, "out"});
  if (with_lse) inputs.make_lse(lse, {name, "lse"});
  weights.make(inputs.q.kind(), sum_of(inputs.q.tensor().type), inputs.extents());
  statistics.make(inputs.q.kind(), sum_of(inputs.q.tensor().type), inputs.extents());
  mh_status status;
  {
    nb::gil_scoped_release released;
    status = mh_attention_statistics(inputs.q.get(), inputs.k.get(), inputs.v.get(), out.array.get(), lse.array.get(),
                                     weights.get(), statistics.get(), options.get());
  }
  check(status);
  return answer(out, lse, weights, statistics);
}

// call: (layout, lse, weights).
nb::object attention_weights(nb::handle q, nb::handle k, const nb::tuple& call, const nb::dict& given) {
  const char* const name = "attention_weights";
  Inputs inputs;
  inputs.read_layout(call[0], name);
  inputs.read_first(q, {name, "q"});
  inputs.read(k, inputs.k, {name, "k"});
  Array lse;
  lse.read_if(call[1], {name, "lse"});
  if (lse.given() && inputs.batchless && lse.rank() == 2) lse.add_axis();
  Options options(name, given);
  options.run().set_work(inputs.work());
  Weights weights;
  weights.read(call[2], name);
  if (!weights.wanted()) raise(PyExc_ValueError, {name, "weights"}, "asks for nothing");
  if (!lse.given() && weights.normalised())
    raise(PyExc_ValueError, {name, "lse"}, "is missing; only at other points than \"normalised\" may it be left out");
  weights.make(inputs.q.kind(), sum_of(inputs.q.tensor().type), inputs.extents());
  mh_status status;
  {
    nb::gil_scoped_release released;
    status = mh_attention_weights(inputs.q.get(), inputs.k.get(), lse.get(), weights.get(), options.get());
  }
  check(status);
  return weights.result();
}

// Ranks 4 and 3 of out and lse; without the axis of the batch 3 and 2.
nb::object merge(nb::handle out_a, nb::handle lse_a, nb::handle out_b, nb::handle lse_b, nb::handle target) {
  const char* const name = "merge";
  const nb::handle objects[] = {out_a, lse_a, out_b, lse_b};
  const char* const names[] = {"out_a", "lse_a", "out_b", "lse_b"};
  Array arrays[4];
  bool batchless = false;
  for (int i = 0; i < 4; ++i) {
    arrays[i].read(objects[i], {name, names[i]});
    if (i == 0) batchless = arrays[0].rank() == 3;
    const int wanted = (i % 2 == 0 ? 4 : 3) - batchless;
    if (arrays[i].rank() != wanted)
      raise(PyExc_ValueError, {name, names[i]},
            "has rank " + std::to_string(arrays[i].rank()) + "; " + std::to_string(wanted) + " is wanted");
    if (batchless) arrays[i].add_axis();
  }
  RunOptions run(name);
  run.read_target(target);
  Result out, lse;
  const mh_tensor& shape = arrays[0].tensor();
  out.make({name, "out"}, arrays[0].kind(), shape.type, 4 - batchless, shape.shape + batchless);
  lse.make({name, "lse"}, arrays[0].kind(), shape.type, 3 - batchless, shape.shape + batchless);
  if (batchless) out.array.add_axis();
  if (batchless) lse.array.add_axis();
  mh_status status;
  {
    nb::gil_scoped_release released;
    status = mh_merge(arrays[0].get(), arrays[1].get(), arrays[2].get(), arrays[3].get(), out.array.get(),
                      lse.array.get(), run.get());
  }
  check(status);
  return nb::make_tuple(out.object, lse.object);
}

mh_type type_named(nb::handle dtype) {
  const char* const names[] = {"float32", "float64", "bfloat16", "float16"};
  for (int i = 0; i < 4; ++i)
    if (is_text(dtype, names[i])) return MH_FLOAT32 + i;
  raise(PyExc_ValueError, {"explain", "dtype"},
        "is " + shown(dtype) + "; \"float32\", \"float64\", \"bfloat16\" or \"float16\" is wanted");
}

// extents: batch, heads, kv_heads, q_len, kv_len, head_dim, value_dim.
nb::dict explain(const nb::tuple& extents, nb::handle dtype, const nb::dict& given) {
  const char* const names[] = {"batch", "heads", "kv_heads", "q_len", "kv_len", "head_dim", "value_dim"};
  mh_attention_shape shape;
  mh_attention_shape_init(&shape, sizeof shape);
  shape.type = type_named(dtype);
  int64_t* const fields[] = {&shape.batch,  &shape.heads,    &shape.kv_heads, &shape.q_len,
                             &shape.kv_len, &shape.head_dim, &shape.value_dim};
  for (size_t i = 0; i < 7; ++i) *fields[i] = integer(extents[i], {"explain", names[i]});
  Options options("explain", given);
  options.run().set_work(static_cast<double>(shape.batch) * static_cast<double>(shape.heads) *
                         static_cast<double>(shape.q_len) * static_cast<double>(shape.kv_len) *
                         static_cast<double>(shape.head_dim + shape.value_dim));
  mh_attention_plan plan;
  mh_attention_plan_init(&plan, sizeof plan);
  check(mh_explain(&shape, options.get(), &plan));
  nb::dict result;
  result["target"] = mh_target_name(plan.target);
  result["kernel"] = plan.kernel;
  result["why"] = plan.why;
  result["row_block"] = plan.row_block;
  result["key_block"] = plan.key_block;
  result["score_tile"] = plan.score_tile;
  result["terms"] = plan.terms;
  result["tasks"] = plan.tasks;
  result["threads"] = options.run().get()->threads;
  result["visible_pairs"] = plan.visible_pairs;
  result["flops"] = plan.flops;
  result["scratch_bytes"] = plan.scratch_bytes;
  return result;
}

}  // namespace

void add_attention(nb::module_& module) {
  const auto any = nb::arg().none();
  module.def("attention", &attention, any, any, any, nb::arg(), nb::arg());
  module.def("attention_weights", &attention_weights, any, any, nb::arg(), nb::arg());
  module.def("merge", &merge, any, any, any, any, any);
  module.def("explain", &explain, nb::arg(), any, nb::arg());
}

}  // namespace face

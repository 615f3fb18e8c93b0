// SPDX-License-Identifier: Apache-2.0
// Weights on request: what was asked for, and the array that it goes to.
#include "options.hpp"

namespace face {
namespace {

mh_weights_point point_of(nb::handle name, Place place) {
  const char* const names[] = {"normalised", "scaled", "capped", "biased"};
  for (int point = 0; point < 4; ++point)
    if (is_text(name, names[point])) return point;
  raise(PyExc_ValueError, place,
        "is " + shown(name) + "; \"normalised\", \"scaled\", \"capped\" or \"biased\" is wanted");
}

}  // namespace

void Weights::read(nb::handle asked, const char* function) {
  const Place place{function, "return_weights"};
  function_ = function;
  if (asked.is_none()) return;
  if (is_flag(asked) && !flag(asked, place)) return;
  wanted_ = true;
  mh_weights_request_init(&request_, sizeof request_);
  if (is_flag(asked)) return;
  if (PyUnicode_Check(asked.ptr())) {
    if (!is_text(asked, "mean"))
      raise(PyExc_ValueError, place, "is " + shown(asked) + "; True, \"mean\" or a WeightsRequest is wanted");
    mean_ = true;
    return;
  }
  if (!nb::hasattr(asked, "norm_weighted"))
    raise(PyExc_TypeError, place, "has type " + name_of_type(asked) + "; True, \"mean\" or a WeightsRequest is wanted");
  request_.point = point_of(asked.attr("point"), {function, "return_weights.point"});
  heads_.read_if(asked.attr("heads"), {function, "return_weights.heads"});
  rows_.read_if(asked.attr("rows"), {function, "return_weights.rows"});
  norms_.read_if(asked.attr("norms"), {function, "return_weights.norms"});
  mean_ = flag(asked.attr("mean"), {function, "return_weights.mean"});
  norm_weighted_ = flag(asked.attr("norm_weighted"), {function, "return_weights.norm_weighted"});
  if (mean_ && norm_weighted_) raise(PyExc_ValueError, place, "asks for mean and norm_weighted; one is wanted");
  for (const Integers* list : {&heads_, &rows_})
    if (list->given() && list->size() == 0) raise(PyExc_ValueError, place, "asks for no head or no row");
}

void Weights::make(Kind kind, mh_type type, const Extents& extents) {
  if (!wanted_) return;
  const int64_t heads = heads_.given() ? heads_.size() : extents.heads;
  const int64_t rows = rows_.given() ? rows_.size() : extents.q_len;
  const bool joined = mean_ || norm_weighted_;
  const int64_t shape[] = {extents.batch, heads, rows, extents.kv_len};
  const int64_t joined_shape[] = {extents.batch, rows, extents.kv_len};
  const int64_t* from = joined ? joined_shape : shape;
  const int rank = joined ? 3 : 4;
  result_.make({function_, "weights"}, kind, type, rank - extents.batchless, from + extents.batchless);
  if (extents.batchless) result_.array.add_axis();
  request_.heads = heads_.get();
  request_.rows = rows_.get();
  request_.norms = norms_.get();
  (norm_weighted_ ? request_.norm_weighted : mean_ ? request_.mean : request_.per_head) = result_.array.get();
}

}  // namespace face

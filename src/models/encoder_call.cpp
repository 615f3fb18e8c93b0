// SPDX-License-Identifier: Apache-2.0
// Every rule of a call of Encoder, checked before anything is written.
#include "models/encoder_statistics.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <limits>
#include <span>

namespace multihead {

namespace {

std::string text(std::int64_t value) { return std::to_string(value); }

void check_between(const char* what, std::int64_t value, std::int64_t low, std::int64_t high) {
  if (value < low || value > high)
    fail(kEncoder, ErrorCode::bad_option,
         std::string(what) + " is " + text(value) + "; it must be " + text(low) + " to " + text(high));
}

// Each at most once, of 0 .. count - 1.
void check_places(const char* what, std::span<const std::int64_t> places, std::int64_t count) {
  for (std::size_t i = 0; i < places.size(); ++i) {
    check_between(what, places[i], 0, count - 1);
    if (std::find(places.begin(), places.begin() + static_cast<std::ptrdiff_t>(i), places[i]) !=
        places.begin() + static_cast<std::ptrdiff_t>(i))
      fail(kEncoder, ErrorCode::bad_option, std::string(what) + " " + text(places[i]) + " is asked for twice");
  }
}

void check_request(const EncoderCall& call, const WeightsRequest<float>& w) {
  check_places("a head of weights.heads", w.heads, call.encoder.e.heads);
  for (std::int64_t row : w.rows) check_between("a row of weights.rows", row, 0, call.tokens() - 1);
  if (is_given(w.norm_weighted) && w.point != WeightsPoint::normalised)
    fail(kEncoder, ErrorCode::bad_option, "weights.norm_weighted is asked for at a point that is not normalised");
  if (is_given(w.norms)) fail(kEncoder, ErrorCode::bad_option, "weights.norms is given; the encoder computes them");
}

// Calls visit(view, extents wanted, whether its last axis must be contiguous) for everything that the call writes.
template <class Visit>
void each_output(const EncoderCall& call, const Visit& visit) {
  const EncoderExtents& e = call.encoder.e;
  const std::int64_t tokens = call.tokens();
  visit(Written("output", call.output), std::array{tokens, e.model_dim}, true);
  if (is_given(call.requests.hidden_states))
    visit(Written("hidden_states", call.requests.hidden_states), std::array{e.layers + 1, tokens, e.model_dim}, true);
  if (is_given(call.requests.norms))
    visit(Written("norms", call.requests.norms), std::array{e.layers, e.heads, tokens}, false);
  std::int64_t layer = 0;
  const auto of_layer = [&](const auto& view, const auto& wanted) {
    Written written = view;
    written.layer = layer;
    visit(written, wanted, false);
  };
  for (const WeightsRequest<float>& w : call.requests.weights) {
    const std::int64_t heads = w.heads.empty() ? e.heads : static_cast<std::int64_t>(w.heads.size());
    const std::int64_t rows = w.rows.empty() ? tokens : static_cast<std::int64_t>(w.rows.size());
    if (is_given(w.per_head))
      of_layer(Written("weights.per_head", w.per_head), std::array<std::int64_t, 4>{1, heads, rows, tokens});
    const std::array<std::int64_t, 3> joined{1, rows, tokens};
    if (is_given(w.mean)) of_layer(Written("weights.mean", w.mean), joined);
    if (is_given(w.norm_weighted)) of_layer(Written("weights.norm_weighted", w.norm_weighted), joined);
    ++layer;
  }
  layer = 0;
  for (const StatisticsRequest<float>& s : call.requests.statistics) {
    each_statistic(call, s, of_layer);
    ++layer;
  }
}

void check_gates(const EncoderCall& call, Written& gates) {
  if (!is_given(call.input.gates)) return;
  check_read(kEncoder, gates, std::array{call.encoder.e.layers, call.encoder.e.heads});
  for (std::int64_t layer = 0; layer < call.encoder.e.layers; ++layer)
    for (std::int64_t head = 0; head < call.encoder.e.heads; ++head)
      if (!std::isfinite(call.input.gates(layer, head)))
        fail(kEncoder, ErrorCode::bad_option, "a gate is not finite; it must be");
}

// Each output is as it must be, apart from the input and from those before it.
void check_outputs(const EncoderCall& call) {
  Written gates("gates", call.input.gates);
  check_gates(call, gates);
  int index = 0;
  each_output(call, [&](Written view, std::span<const std::int64_t> wanted, bool rows) {
    check_written(kEncoder, view, wanted);
    if (rows) check_rows(kEncoder, view);
    const auto apart = [&](const char* other, const auto& span) {
      check_apart(kEncoder, view, other, span.data(), span.data() + span.size());
    };
    apart("ids", call.input.ids), apart("cu_seqlens", call.input.cu_seqlens);
    apart("token_types", call.input.token_types);
    check_apart(kEncoder, view, "gates", gates.begin, gates.end);
    for (const WeightsRequest<float>& w : call.requests.weights)
      apart("weights.heads", w.heads), apart("weights.rows", w.rows);
    for (const StatisticsRequest<float>& s : call.requests.statistics) check_apart_from_statistics(view, s);
    int before = 0;
    each_output(call, [&](Written other, std::span<const std::int64_t> others, bool) {
      if (before++ >= index) return;
      check_written(kEncoder, other, others);
      check_apart(kEncoder, view, other.name, other.begin, other.end);
    });
    ++index;
  });
}

}  // namespace

void EncoderCall::check() const {
  const EncoderExtents& e = encoder.e;
  if (!input.ids.data() && !input.ids.empty())
    fail(kEncoder, ErrorCode::shape_mismatch, "ids is null; it must point to its elements");
  check_starts(kEncoder, input.cu_seqlens, tokens());
  each_sequence(input.cu_seqlens, tokens(), [&](std::int64_t first, std::int64_t last) {
    if (last - first > e.max_tokens)
      fail(kEncoder, ErrorCode::bad_option,
           "a sequence has " + text(last - first) + " tokens; it must have at most " + text(e.max_tokens));
  });
  for (std::int64_t id : input.ids) check_between("an id", id, 0, e.vocab_size - 1);
  if (!input.token_types.empty() && input.token_types.size() != input.ids.size())
    fail(kEncoder, ErrorCode::shape_mismatch,
         "token_types has " + text(static_cast<std::int64_t>(input.token_types.size())) + " elements, ids " +
             text(tokens()) + "; they must be equal");
  for (std::int64_t type : input.token_types) check_between("a token type", type, 0, e.token_types - 1);
  check_between("threads", options.threads, 1, 1 << 16);
  chosen_target(options.target);
  const auto one_a_layer = [&](const char* name, std::size_t count) {
    if (count != 0 && static_cast<std::int64_t>(count) != e.layers)
      fail(kEncoder, ErrorCode::shape_mismatch,
           std::string(name) + " has " + text(static_cast<std::int64_t>(count)) +
               " requests; it must have one a layer, " + text(e.layers));
  };
  one_a_layer("weights", requests.weights.size());
  one_a_layer("statistics", requests.statistics.size());
  for (const WeightsRequest<float>& request : requests.weights) check_request(*this, request);
  for (const StatisticsRequest<float>& request : requests.statistics) check_statistics(*this, request);
  check_outputs(*this);
}

}  // namespace multihead

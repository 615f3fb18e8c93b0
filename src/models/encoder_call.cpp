// SPDX-License-Identifier: Apache-2.0
// Every rule of a call of Encoder, checked before anything is written.
#include "models/encoder_call.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <span>

namespace multihead {

namespace {

std::string text(std::int64_t value) { return std::to_string(value); }

template <class T, int Rank>
bool given(const View<T, Rank>& view) {
  return view.data() || view.extents() != typename View<T, Rank>::Extents{};
}

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
  if (given(w.norm_weighted) && w.point != WeightsPoint::normalised)
    fail(kEncoder, ErrorCode::bad_option, "weights.norm_weighted is asked for at a point that is not normalised");
  if (given(w.norms)) fail(kEncoder, ErrorCode::bad_option, "weights.norms is given; the encoder computes them");
}

// Calls visit(view, extents wanted, whether its last axis must be contiguous) for everything that the call writes.
template <class Visit>
void each_output(const EncoderCall& call, const Visit& visit) {
  using Extents = std::initializer_list<std::int64_t>;
  const EncoderExtents& e = call.encoder.e;
  const std::int64_t tokens = call.tokens();
  visit(Written("output", call.output), Extents{tokens, e.model_dim}, true);
  if (given(call.requests.hidden_states))
    visit(Written("hidden_states", call.requests.hidden_states), Extents{e.layers + 1, tokens, e.model_dim}, true);
  for (const WeightsRequest<float>& w : call.requests.weights) {
    const std::int64_t heads = w.heads.empty() ? e.heads : static_cast<std::int64_t>(w.heads.size());
    const std::int64_t rows = w.rows.empty() ? tokens : static_cast<std::int64_t>(w.rows.size());
    if (given(w.per_head)) visit(Written("weights.per_head", w.per_head), Extents{1, heads, rows, tokens}, false);
    if (given(w.mean)) visit(Written("weights.mean", w.mean), Extents{1, rows, tokens}, false);
    if (given(w.norm_weighted))
      visit(Written("weights.norm_weighted", w.norm_weighted), Extents{1, rows, tokens}, false);
  }
}

// Each output is as it must be, apart from the input and from those before it.
void check_outputs(const EncoderCall& call) {
  int index = 0;
  each_output(call, [&](Written view, std::initializer_list<std::int64_t> wanted, bool rows) {
    check_written(kEncoder, view, wanted);
    if (rows) check_rows(kEncoder, view);
    const auto apart = [&](const char* other, const auto& span) {
      check_apart(kEncoder, view, other, span.data(), span.data() + span.size());
    };
    apart("ids", call.input.ids), apart("cu_seqlens", call.input.cu_seqlens);
    apart("token_types", call.input.token_types);
    int before = 0;
    each_output(call, [&](Written other, std::initializer_list<std::int64_t> others, bool) {
      if (before++ >= index) return;
      check_written(kEncoder, other, others);
      check_apart(kEncoder, view, other.name, other.begin, other.end);
    });
    ++index;
  });
}

}  // namespace

void fail(const char* function, ErrorCode code, const std::string& rule) {
  throw Error(code, std::string(function) + ": " + rule);
}

void check_starts(const char* function, std::span<const std::int64_t> starts, std::int64_t tokens) {
  if (starts.empty()) return;
  if (starts.front() != 0)
    fail(function, ErrorCode::bad_option, "cu_seqlens begins with " + text(starts.front()) + "; it must be 0");
  for (std::size_t i = 1; i < starts.size(); ++i)
    if (starts[i] < starts[i - 1])
      fail(function, ErrorCode::bad_option,
           "cu_seqlens has " + text(starts[i]) + " after " + text(starts[i - 1]) + "; it must not descend");
  if (starts.back() != tokens)
    fail(function, ErrorCode::shape_mismatch,
         "cu_seqlens ends with " + text(starts.back()) + ", there are " + text(tokens) + " tokens; they must be equal");
}

void check_written(const char* function, Written& view, std::initializer_list<std::int64_t> wanted) {
  const auto refuse = [&](const std::string& rule) {
    fail(function, ErrorCode::shape_mismatch, std::string(view.name) + " " + rule);
  };
  if (!std::equal(wanted.begin(), wanted.end(), view.extents.begin(), view.extents.end())) {
    std::string is, must;
    for (std::int64_t extent : view.extents) is += (is.empty() ? "" : ", ") + text(extent);
    for (std::int64_t extent : wanted) must += (must.empty() ? "" : ", ") + text(extent);
    refuse("has extents (" + is + "); they must be (" + must + ")");
  }
  view.begin = view.end = view.data;
  if (std::find(wanted.begin(), wanted.end(), 0) != wanted.end()) return;
  if (!view.data) refuse("is null; it must point to its elements");
  // Axes by rising stride: each steps over all that the ones before it span.
  std::array<std::size_t, 4> axes{};
  std::size_t count = 0;
  for (std::size_t axis = 0; axis < view.extents.size(); ++axis) {
    if (view.extents[axis] <= 1) continue;
    std::size_t place = count++;
    for (; place > 0 && std::abs(view.strides[axes[place - 1]]) > std::abs(view.strides[axis]); --place)
      axes[place] = axes[place - 1];
    axes[place] = axis;
  }
  std::int64_t span = 1, below = 0;
  for (std::size_t axis : std::span(axes).first(count)) {
    const std::int64_t stride = view.strides[axis];
    std::int64_t reach = 0;
    if (std::abs(stride) < span) refuse("has strides that put two elements in one place");
    if (__builtin_mul_overflow(stride, view.extents[axis] - 1, &reach) ||
        __builtin_add_overflow(span, std::abs(reach), &span) || span > (std::int64_t{1} << 60))
      refuse("has extents and strides beyond the address space");
    below += std::min<std::int64_t>(reach, 0);
  }
  view.begin = view.data + below, view.end = view.begin + span;
}

void check_rows(const char* function, const Written& view) {
  if (view.extents.back() > 1 && view.strides.back() != 1)
    fail(function, ErrorCode::shape_mismatch,
         std::string(view.name) + " has stride " + text(view.strides.back()) + " on its last axis; it must be 1");
}

void check_apart(const char* function, const Written& view, const char* other, const void* begin, const void* end) {
  const std::less<const void*> before;
  if (begin != end && view.begin != view.end && before(view.begin, end) && before(begin, view.end))
    fail(function, ErrorCode::shape_mismatch, std::string(view.name) + " overlaps " + other + "; they must be apart");
}

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
  if (!requests.weights.empty() && static_cast<std::int64_t>(requests.weights.size()) != e.layers)
    fail(kEncoder, ErrorCode::shape_mismatch,
         "weights has " + text(static_cast<std::int64_t>(requests.weights.size())) +
             " requests; it must have one a layer, " + text(e.layers));
  for (const WeightsRequest<float>& request : requests.weights) check_request(*this, request);
  check_outputs(*this);
}

}  // namespace multihead

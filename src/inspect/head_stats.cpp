// SPDX-License-Identifier: Apache-2.0
// HeadStats: the memory of one call's statistics, and the request that fills it.
#include <algorithm>
#include <new>

#include "core/validate.hpp"
#include "multihead/inspect.hpp"

namespace multihead {

namespace {

constexpr const char* kName = "HeadStats";

template <class List>
void check_list(const char* name, const List& list, std::int64_t wanted) {
  if (!list.empty())
    check_equal(kName, name, "has elements", static_cast<std::int64_t>(list.size()), "wanted are", wanted);
}

// Elements of that many by that many; more than can be counted are more than can be allocated.
std::size_t elements(std::initializer_list<std::int64_t> extents) {
  std::int64_t product = 1;
  for (const std::int64_t extent : extents)
    if (__builtin_mul_overflow(product, extent, &product)) throw std::bad_alloc();
  return static_cast<std::size_t>(product);
}

void check(const HeadStatsSpec& spec) {
  for (const auto& [name, value] :
       {std::pair{"batch", spec.batch}, {"heads", spec.heads}, {"q_len", spec.q_len}, {"kv_len", spec.kv_len}})
    check_between(kName, name, value, 0, std::int64_t{1} << 31);
  constexpr std::int64_t kFar = kMostStatisticsReach;
  check_between(kName, "top", spec.top, 1, kMostTopKeys);
  check_between(kName, "classes", static_cast<std::int64_t>(spec.classes.size()), 0, kMostStatisticsClasses);
  check_between(kName, "query_offset", spec.query_offset, -kFar, kFar);
  for (std::int64_t offset : spec.offsets) check_between(kName, "an offset of offsets", offset, -kFar, kFar);
  for (std::int64_t key : spec.keys) check_between(kName, "a key of keys", key, 0, kFar);
  for (std::int64_t length : spec.q_lengths) check_between(kName, "a length of q_lengths", length, 0, spec.q_len);
  if (spec.bin != 0 && !is_map_bin(spec.bin))
    fail(ErrorCode::bad_option, std::string(kName) + ": bin is " + std::to_string(spec.bin) +
                                    "; it must be 0, 16, 32, 64 or a multiple of 128 up to " + std::to_string(kFar));
  check_list("key_classes", spec.key_classes, spec.batch * spec.kv_len);
  check_list("q_lengths", spec.q_lengths, spec.batch);
  check_list("q_tokens", spec.q_tokens, spec.batch * spec.q_len);
  check_list("kv_tokens", spec.kv_tokens, spec.batch * spec.kv_len);
  if (spec.classes.empty() != spec.key_classes.empty() && spec.batch * spec.kv_len > 0)
    fail(ErrorCode::bad_option, "HeadStats: classes and key_classes must come together");
  if (spec.q_tokens.empty() != spec.kv_tokens.empty() && spec.batch * spec.kv_len * spec.q_len > 0)
    fail(ErrorCode::bad_option, "HeadStats: q_tokens and kv_tokens must come together");
}

// Calls visit(vector, view, width) for each statistic, width being the elements a row, or of a head for the last two.
template <class Rows, class Views, class Visit>
void each_row_statistic(const HeadStatsSpec& spec, Rows& rows, Views& views, const Visit& visit) {
  const auto count = [](const auto& list) { return static_cast<std::int64_t>(list.size()); };
  const std::int64_t patterns = spec.q_tokens.empty() ? 0 : 1;
  visit(rows.visible, views.visible, 1), visit(rows.entropy, views.entropy, 1);
  visit(rows.sum_squares, views.sum_squares, 1), visit(rows.distance, views.distance, 1);
  visit(rows.offset_mass, views.offset_mass, count(spec.offsets));
  visit(rows.key_mass, views.key_mass, count(spec.keys));
  visit(rows.class_mass, views.class_mass, count(spec.classes));
  visit(rows.duplicate_mass, views.duplicate_mass, patterns);
  visit(rows.induction_mass, views.induction_mass, patterns);
  visit(rows.top_keys, views.top_keys, spec.top), visit(rows.top_weights, views.top_weights, spec.top);
}

void allocate(const HeadStatsSpec& spec, HeadStatsRows& rows) {
  RowStatistics<float> views;
  each_row_statistic(spec, rows, views, [&](auto& list, auto&, std::int64_t width) {
    list.resize(elements({spec.batch, spec.heads, spec.q_len, width}));
  });
  if (spec.received) rows.received.resize(elements({spec.batch, spec.heads, spec.kv_len}));
  if (spec.bin > 0)
    rows.map.resize(
        elements({spec.batch, spec.heads, map_cells(spec.q_len, spec.bin), map_cells(spec.kv_len, spec.bin)}));
}

template <class T, class Rows>
RowStatistics<T> views_of(const HeadStatsSpec& spec, Rows& rows) {
  RowStatistics<T> views;
  each_row_statistic(spec, rows, views, [&]<class List, class View>(List& list, View& view, std::int64_t width) {
    if (list.empty()) return;
    if constexpr (std::tuple_size_v<typename View::Extents> == 4)
      view = View(list.data(), {spec.batch, spec.heads, spec.q_len, width});
    else
      view = View(list.data(), {spec.batch, spec.heads, spec.q_len});
  });
  if (!rows.received.empty()) views.received = {rows.received.data(), {spec.batch, spec.heads, spec.kv_len}};
  if (!rows.map.empty())
    views.map = {rows.map.data(),
                 {spec.batch, spec.heads, map_cells(spec.q_len, spec.bin), map_cells(spec.kv_len, spec.bin)}};
  return views;
}

}  // namespace

HeadStats::HeadStats(HeadStatsSpec spec) : spec_(std::move(spec)) {
  check(spec_);
  try {
    allocate(spec_, plain_);
    if (spec_.norm_weighted) allocate(spec_, norm_weighted_);
  } catch (const std::exception&) {
    fail(ErrorCode::out_of_memory, "HeadStats: statistics of batch " + std::to_string(spec_.batch) + ", heads " +
                                       std::to_string(spec_.heads) + " and q_len " + std::to_string(spec_.q_len) +
                                       " cannot be allocated");
  }
}

StatisticsRequest<float> HeadStats::request() {
  StatisticsRequest<float> request;
  request.offsets = spec_.offsets, request.keys = spec_.keys, request.bin = spec_.bin;
  if (!spec_.key_classes.empty()) request.key_classes = {spec_.key_classes.data(), {spec_.batch, spec_.kv_len}};
  if (!spec_.q_tokens.empty()) {
    request.q_tokens = {spec_.q_tokens.data(), {spec_.batch, spec_.q_len}};
    request.kv_tokens = {spec_.kv_tokens.data(), {spec_.batch, spec_.kv_len}};
  }
  request.plain = views_of<float>(spec_, plain_);
  if (spec_.norm_weighted) request.norm_weighted = views_of<float>(spec_, norm_weighted_);
  return request;
}

RowStatistics<const float> HeadStats::rows(bool norm_weighted) const {
  return views_of<const float>(spec_, norm_weighted ? norm_weighted_ : plain_);
}

}  // namespace multihead

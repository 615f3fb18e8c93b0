// SPDX-License-Identifier: Apache-2.0
// A request for statistics, field by field: what no output reads is refused.
#include "statistics.hpp"

namespace multihead::c {

namespace {

mh_row_statistics read_rows(const char* function, const mh_row_statistics* given) {
  const mh_row_statistics read = read_struct(function, given);
  check_reserved(function, "mh_row_statistics.reserved", read.reserved);
  return read;
}

template <class T>
RowStatistics<T> rows_of(const char* function, const mh_row_statistics& read, bool weighted) {
  RowStatistics<T> rows;
#define MULTIHEAD_VIEW(element, rank, name) \
  rows.name = optional_view<element, rank>( \
      {function, weighted ? "statistics.norm_weighted." #name : "statistics." #name}, read.name)
  MULTIHEAD_VIEW(T, 3, visible);
  MULTIHEAD_VIEW(T, 3, entropy);
  MULTIHEAD_VIEW(T, 3, sum_squares);
  MULTIHEAD_VIEW(T, 3, distance);
  MULTIHEAD_VIEW(T, 4, offset_mass);
  MULTIHEAD_VIEW(T, 4, key_mass);
  MULTIHEAD_VIEW(T, 4, class_mass);
  MULTIHEAD_VIEW(T, 3, duplicate_mass);
  MULTIHEAD_VIEW(T, 3, induction_mass);
  MULTIHEAD_VIEW(std::int64_t, 4, top_keys);
  MULTIHEAD_VIEW(T, 4, top_weights);
  MULTIHEAD_VIEW(T, 3, received);
  MULTIHEAD_VIEW(T, 4, map);
#undef MULTIHEAD_VIEW
  return rows;
}

void check_read(const char* function, const mh_statistics_request& read, const mh_row_statistics& plain,
                const mh_row_statistics& weighted) {
  const auto asked = [&](const mh_tensor* mh_row_statistics::*output) {
    return is_given(plain.*output) || is_given(weighted.*output);
  };
  if (!asked(&mh_row_statistics::offset_mass))
    check_unread(function, "without offset_mass", {{"statistics.offsets", is_given(read.offsets)}});
  if (!asked(&mh_row_statistics::key_mass))
    check_unread(function, "without key_mass", {{"statistics.keys", is_given(read.keys)}});
  if (!asked(&mh_row_statistics::class_mass))
    check_unread(function, "without class_mass", {{"statistics.key_classes", is_given(read.key_classes)}});
  if (!asked(&mh_row_statistics::duplicate_mass) && !asked(&mh_row_statistics::induction_mass))
    check_unread(
        function, "without duplicate_mass and induction_mass",
        {{"statistics.q_tokens", is_given(read.q_tokens)}, {"statistics.kv_tokens", is_given(read.kv_tokens)}});
  if (!asked(&mh_row_statistics::map))
    check_unread(function, "without map", {{"statistics.bin", read.bin, std::int64_t{0}}});
}

}  // namespace

template <class T>
StatisticsRequest<T> statistics_request(const char* function, const mh_statistics_request* given) {
  StatisticsRequest<T> request;
  if (!given) return request;
  const mh_statistics_request read = read_struct(function, given);
  check_reserved(function, "mh_statistics_request.reserved", read.reserved);
  const mh_row_statistics plain = read_rows(function, read.plain);
  const mh_row_statistics weighted = read_rows(function, read.norm_weighted);
  check_read(function, read, plain, weighted);
  request.plain = rows_of<T>(function, plain, false);
  request.norm_weighted = rows_of<T>(function, weighted, true);
  if (!request.norm_weighted.any())
    check_unread(function, "without norm_weighted", {{"statistics.norms", is_given(read.norms)}});
  request.offsets = filled_list<std::int64_t>({function, "statistics.offsets"}, read.offsets);
  request.keys = filled_list<std::int64_t>({function, "statistics.keys"}, read.keys);
  request.key_classes = optional_view<const std::uint32_t, 2>({function, "statistics.key_classes"}, read.key_classes);
  request.q_tokens = optional_view<const std::int64_t, 2>({function, "statistics.q_tokens"}, read.q_tokens);
  request.kv_tokens = optional_view<const std::int64_t, 2>({function, "statistics.kv_tokens"}, read.kv_tokens);
  request.norms = optional_view<const T, 3>({function, "statistics.norms"}, read.norms);
  request.bin = read.bin;
  return request;
}

template StatisticsRequest<float> statistics_request(const char*, const mh_statistics_request*);
template StatisticsRequest<double> statistics_request(const char*, const mh_statistics_request*);

}  // namespace multihead::c

using namespace multihead::c;

mh_status mh_statistics_of_weights(const mh_tensor* weights, const mh_statistics_request* statistics,
                                   int64_t query_offset) {
  constexpr const char* kName = "statistics_of_weights";
  return guarded([&] {
    const Role role{kName, "weights"};
    wanted(kName, "weights", weights);
    wanted(kName, "statistics", statistics);
    with_sum_type(role, type_of(role, weights), [&]<class T>() {
      const multihead::StatisticsRequest<T> request = statistics_request<T>(kName, statistics);
      if (!request.plain.any() && !request.norm_weighted.any())
        bad_argument(kName, "statistics asks for nothing; an output of its plain or norm_weighted must be given");
      multihead::statistics_of_weights(view<const T, 4>(role, weights), request, query_offset);
    });
  });
}

void mh_row_statistics_init(mh_row_statistics* statistics, size_t size) { init_struct(statistics, size); }
void mh_statistics_request_init(mh_statistics_request* request, size_t size) { init_struct(request, size); }

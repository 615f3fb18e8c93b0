// SPDX-License-Identifier: Apache-2.0
// From the structs of a request for statistics to those of C++.
#pragma once

#include "multihead/statistics.hpp"
#include "options.hpp"

namespace multihead::c {

template <>
struct StructOf<mh_row_statistics> : Described<mh_row_statistics> {
  static constexpr const char* kName = "mh_row_statistics";
};

template <>
struct StructOf<mh_statistics_request> : Described<mh_statistics_request> {
  static constexpr const char* kName = "mh_statistics_request";
};

// T: the type of the call's sums.
template <class T>
StatisticsRequest<T> statistics_request(const char* function, const mh_statistics_request* given);

extern template StatisticsRequest<float> statistics_request(const char*, const mh_statistics_request*);
extern template StatisticsRequest<double> statistics_request(const char*, const mh_statistics_request*);

}  // namespace multihead::c

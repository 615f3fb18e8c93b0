// SPDX-License-Identifier: Apache-2.0
// Statistics on request: the rules of a request, and what of it a task gathers while keys pass.
#pragma once

#include <initializer_list>

#include "core/validate.hpp"
#include "kernels/sequences.hpp"
#include "kernels/statistics_task.hpp"
#include "multihead/attention.hpp"

namespace multihead {

// Lists in range, extents that agree, and outputs that are writable and apart from each other, from inputs and from
// what the request and the options point to. norms_given: whether the caller gives norms, rather than a layer.
template <class T>
void check_statistics(const char* function, const StatisticsRequest<T>& request, const AttentionShape& shape,
                      std::initializer_list<Operand> inputs, const AttentionOptions& options, bool norms_given = true);
// Of those, what memory depends on: how many classes and top keys there are, and the bins of a map.
template <class T>
void check_statistics_counts(const char* function, const StatisticsRequest<T>& request, const AttentionShape& shape,
                             const AttentionOptions& options);
// An output is apart from what the request reads.
template <class T>
void check_apart_from_statistics(const char* function, const Operand& output, const StatisticsRequest<T>& request);

// Whether anything is asked for that is gathered while the keys of a row pass: all but received and map.
template <class T>
bool gathers(const RowStatistics<T>& to);

// How many numbers of each kind a row has. Reads extents and lists, no data.
template <class T>
StatisticsCounts statistics_counts(const StatisticsRequest<T>& request, const RowStatistics<T>& to);

// Of the rows from `row` of a sequence, for one head.
template <class T>
StatisticsTask<T> statistics_task(const StatisticsRequest<T>& request, const RowStatistics<T>& to,
                                  const Sequence& sequence, std::int64_t head, std::int64_t row);

}  // namespace multihead

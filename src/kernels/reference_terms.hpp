// SPDX-License-Identifier: Apache-2.0
// What the references make of one score, in float64: its terms, what hides it, and the functions they go through.
#pragma once

#include <array>
#include <cstdint>

#include "multihead/attention.hpp"

namespace multihead {

// exp, log and tanh of the baseline target: compiled for any machine, the same bits everywhere.
double exp_of(double x);
double log_of(double x);
double tanh_of(double x);

// (batch, head, row, key) in the tensors as they are passed.
using Place = std::array<std::int64_t, 4>;

// Whether a mask or a bias of -inf hides the key from the row.
bool hidden(const AttentionOptions& options, const Place& place);

// The bucket of key j for the query at position p.
int bucket_of(const RelativeBias& relative, std::int64_t p, std::int64_t j);

// A score on its way from the scaled product: p is the query's position, j the key's, both in their sequence.
double score_of(double dot, const AttentionOptions& options, std::int64_t p, std::int64_t j, const Place& place);

}  // namespace multihead

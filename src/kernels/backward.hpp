// SPDX-License-Identifier: Apache-2.0
// attention_backward() inside the library: its rules, and the definition that judges it.
#pragma once

#include "multihead/attention_backward.hpp"

namespace multihead {

// The rules of attention_backward() about operands, gradients and options, apart from the runs of segments.
template <class T>
void check_backward(const char* function, const AttentionForward<T>& forward, const AttentionGradients<T>& gradients,
                    const AttentionOptions& options);

}  // namespace multihead

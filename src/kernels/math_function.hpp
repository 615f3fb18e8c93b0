// SPDX-License-Identifier: Apache-2.0
// The elementary functions by name, for the array form in the kernel table.
#pragma once

namespace multihead {

enum class MathFunction { exp, log, tanh, erf, sin, cos };

}  // namespace multihead

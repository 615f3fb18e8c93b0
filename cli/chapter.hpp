// SPDX-License-Identifier: Apache-2.0
// The chapter's example: two tokens, two heads, and weights small enough to follow with a pencil.
#pragma once

namespace multihead::chapter {

// With two heads (head_dim 3) each token looks mostly at itself in head 0 and mostly at the other one in head 1. X is
// of zeros and ones, so that Q, K and V are sums of rows of the weights and need one decimal.
inline constexpr int kHeads = 2;

inline constexpr double kX[2][3] = {
    {1, 0, 1},
    {0, 1, 1},
};

inline constexpr double kWq[3][6] = {
    {1.2, 0.3, -0.5, 0.4, 1.1, 0.2},
    {-0.4, 1.5, 0.6, 1.3, -0.2, 0.5},
    {0.6, -0.1, 0.8, -0.3, 0.2, -0.7},
};

inline constexpr double kWk[3][6] = {
    {1.4, -0.6, 0.2, 1.0, -0.8, 0.3},
    {-0.7, 1.1, 0.9, -0.5, 1.2, 0.1},
    {0.3, 0.2, -0.4, 0.2, 0.4, -0.6},
};

inline constexpr double kWv[3][6] = {
    {0.5, -0.2, 1.0, 0.3, 0.8, -0.4},
    {-0.3, 0.9, 0.1, -0.6, 0.2, 0.7},
    {0.2, 0.4, -0.5, 0.9, -0.1, 0.6},
};

inline constexpr double kWo[6][3] = {
    {0.7, -0.2, 0.1}, {0.3, 0.5, -0.4}, {-0.1, 0.8, 0.2}, {0.4, -0.3, 0.9}, {-0.6, 0.1, 0.5}, {0.2, 0.6, -0.7},
};

}  // namespace multihead::chapter

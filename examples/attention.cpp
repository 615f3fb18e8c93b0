// SPDX-License-Identifier: Apache-2.0
// Multi-head attention in ten lines: two tokens of width 3, two heads.
#include <cstdio>

#include "multihead/multihead.hpp"

int main() {
  // One row a token.
  const double X[2][3] = {{1, 0, 1}, {0, 1, 1}};
  // (model_dim, heads * head_dim) = (3, 6): head 0 has columns 0 to 2, head 1 columns 3 to 5.
  const double Wq[3][6] = {
      {1.2, 0.3, -0.5, 0.4, 1.1, 0.2},
      {-0.4, 1.5, 0.6, 1.3, -0.2, 0.5},
      {0.6, -0.1, 0.8, -0.3, 0.2, -0.7},
  };
  const double Wk[3][6] = {
      {1.4, -0.6, 0.2, 1.0, -0.8, 0.3},
      {-0.7, 1.1, 0.9, -0.5, 1.2, 0.1},
      {0.3, 0.2, -0.4, 0.2, 0.4, -0.6},
  };
  const double Wv[3][6] = {
      {0.5, -0.2, 1.0, 0.3, 0.8, -0.4},
      {-0.3, 0.9, 0.1, -0.6, 0.2, 0.7},
      {0.2, 0.4, -0.5, 0.9, -0.1, 0.6},
  };
  // (heads * head_dim, out_dim) = (6, 3)
  const double Wo[6][3] = {
      {0.7, -0.2, 0.1}, {0.3, 0.5, -0.4}, {-0.1, 0.8, 0.2}, {0.4, -0.3, 0.9}, {-0.6, 0.1, 0.5}, {0.2, 0.6, -0.7},
  };

  const multihead::Matrix<double> output = multihead::multi_head_attention(X, Wq, Wk, Wv, Wo, 2);

  std::puts("Output:");
  for (int i = 0; i < output.rows(); ++i) {
    for (int j = 0; j < output.columns(); ++j) std::printf("%9.4f", output(i, j));
    std::puts("");
  }
}

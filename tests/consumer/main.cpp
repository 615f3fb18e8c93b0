// SPDX-License-Identifier: Apache-2.0
// A user of the installed library: two words of three numbers through two heads.
#include <cstdio>

#include "multihead/multihead.hpp"

int main() {
  using Matrix = multihead::Matrix<double>;
  const Matrix X{{1, 0, 1}, {0, 1, 1}};
  const Matrix Wq{{1, 0, 2, 1, 0, 1}, {0, 1, 0, 1, 1, 0}, {1, 1, 1, 0, 0, 2}};
  const Matrix Wk{{0, 1, 1, 1, 2, 0}, {1, 0, 1, 0, 1, 1}, {1, 0, 0, 2, 0, 1}};
  const Matrix Wv{{1, 2, 0, 0, 1, 1}, {0, 1, 1, 2, 0, 1}, {1, 0, 1, 1, 1, 0}};
  const Matrix Wo{{1, 0, 0}, {0, 1, 0}, {0, 0, 1}, {1, 1, 0}, {0, 1, 1}, {1, 0, 1}};
  const Matrix output = multihead::multi_head_attention(X, Wq, Wk, Wv, Wo, 2);
  for (int row = 0; row < 2; ++row) std::printf("%.6f %.6f %.6f\n", output(row, 0), output(row, 1), output(row, 2));
  return 0;
}

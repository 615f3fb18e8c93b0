// SPDX-License-Identifier: Apache-2.0
// drop_elements(): dropout of the elements of a matrix.
#include <algorithm>
#include <array>

#include "core/dropout.hpp"
#include "core/float_mode.hpp"
#include "multihead/gradients.hpp"
#include "train/checks.hpp"

namespace multihead {

template <class T>
void drop_elements(const Dropout& dropout, MatrixView<const T> x, MatrixView<T> y) {
  constexpr const char* kName = "drop_elements";
  constexpr std::int64_t kWords = std::int64_t{1} << 32;  // of the counter that rows and columns are told apart by
  const Operand from = operand("x", x), to = operand("y", y);
  check_matrix(kName, from);
  check_matrix(kName, to);
  check_like(kName, to, "x has", from);
  check_writable(kName, to);
  if (!same_place(to, from)) check_apart(kName, to, from);
  check_between(kName, "the number of rows", x.extent(0), 0, kWords);
  check_between(kName, "the width", x.extent(1), 0, 4 * kWords);
  if (!(dropout.probability >= 0 && dropout.probability < 1))
    fail(ErrorCode::bad_option, std::string(kName) + ": dropout.probability is " + std::to_string(dropout.probability) +
                                    "; it must be 0 to below 1");
  const FloatMode mode;
  const T kept = static_cast<T>(1 / (1 - dropout.probability));
  const auto bound = drop_bound(dropout.probability);
  const std::int64_t width = x.extent(1);
  for (std::int64_t i = 0; i < x.extent(0); ++i) {
    const T* const in = x.data() + i * x.stride(0);
    T* const out = y.data() + i * y.stride(0);
    for (std::int64_t first = 0; first < width; first += 4) {
      const std::array<std::uint32_t, 4> words = philox4x32(
          {static_cast<std::uint32_t>(first / 4), static_cast<std::uint32_t>(i), 0, dropout.stream}, dropout.seed);
      const std::int64_t count = std::min<std::int64_t>(4, width - first);
      for (std::int64_t n = 0; n < count; ++n)
        out[first + n] = words[static_cast<std::size_t>(n)] < bound ? T(0) : in[first + n] * kept;
    }
  }
}

template void drop_elements(const Dropout&, MatrixView<const float>, MatrixView<float>);
template void drop_elements(const Dropout&, MatrixView<const double>, MatrixView<double>);

}  // namespace multihead

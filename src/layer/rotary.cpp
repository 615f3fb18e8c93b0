// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding: frequencies to half a unit in the last place, tables, and the turning of channels.
#include "layer/rotary.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/float_mode.hpp"
#include "core/validate.hpp"
#include "kernels/table.hpp"

namespace multihead {

namespace {

constexpr std::int64_t kMaxHalf = kMaxHeadDim / 2;
constexpr double kAngleEnd = 3294198;  // kTrigEnd of src/kernels/math.inl.hpp
constexpr double kMaxTheta = 1e30;

// A sum of two doubles, |low| at most half a unit of high: about 106 bits. Without a fused multiply-add, so that the
// bits are those of every machine (Dekker 1971).
struct Pair {
  double high, low;
};

Pair fast_sum(double a, double b) {  // |a| >= |b|
  const double sum = a + b;
  return {sum, b - (sum - a)};
}

// a b exactly: the factors in halves of 26 bits.
Pair exact_product(double a, double b) {
  constexpr double kSplit = 134217729;  // 2^27 + 1
  const double a_high = a * kSplit - (a * kSplit - a), a_low = a - a_high;
  const double b_high = b * kSplit - (b * kSplit - b), b_low = b - b_high;
  const double product = a * b;
  return {product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low};
}

Pair operator*(Pair a, Pair b) {
  const Pair product = exact_product(a.high, b.high);
  return fast_sum(product.high, product.low + (a.high * b.low + a.low * b.high));
}

Pair power(Pair base, std::int64_t exponent) {
  Pair result{1, 0};
  for (; exponent > 0; exponent >>= 1) {
    if (exponent & 1) result = result * base;
    base = base * base;
  }
  return result;
}

double map_one(MathFunction function, double x) {
  baseline_table.f64.map(function, &x, &x, 1);
  return x;
}

// theta^(-1/n). exp and log give a root r to 1e-13; one step of Newton's method on r^n theta = 1, the residual in
// pairs, squares that error.
Pair inverse_root(double theta, std::int64_t n) {
  const double r = map_one(MathFunction::exp, -map_one(MathFunction::log, theta) / static_cast<double>(n));
  const Pair residual = power({r, 0}, n) * Pair{theta, 0};
  const double error = (residual.high - 1) + residual.low;
  return fast_sum(r, -r * error / static_cast<double>(n));
}

// Long waves slower by the factor, short ones unchanged, a blend between (Llama 3.1).
double llama3_frequency(double frequency, const RotaryScaling& s) {
  constexpr double kTwoPi = 6.283185307179586477;
  const double original = static_cast<double>(s.original_max_position_embeddings);
  const double wavelength = kTwoPi / frequency;
  if (wavelength < original / s.high_freq_factor) return frequency;
  if (wavelength > original / s.low_freq_factor) return frequency / s.factor;
  const double share = (original / wavelength - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
  return (1 - share) * frequency / s.factor + share * frequency;
}

void check_positive(const char* function, const char* what, double value) {
  if (!(value >= 1e-30 && value <= 1e30))
    fail(ErrorCode::bad_option, std::string(function) + ": " + what + " is " + std::to_string(value) +
                                    "; it must be a positive number, 1e-30 to 1e30");
}

}  // namespace

void check_rotary(const char* function, std::int64_t rotary_dim, const RotaryOptions& options) {
  const RotaryScaling& s = options.scaling;
  if (options.pairing != RotaryPairing::half_split && options.pairing != RotaryPairing::interleaved)
    fail(ErrorCode::bad_option, std::string(function) + ": pairing is neither half_split nor interleaved");
  check_between(function, "rotary_dim", rotary_dim, 2, 2 * kMaxHalf);
  if (rotary_dim % 2 != 0)
    fail(ErrorCode::bad_option, std::string(function) + ": rotary_dim is " + std::to_string(rotary_dim) +
                                    "; it must be even, since channels turn in pairs");
  if (!(options.theta >= 1 && options.theta <= kMaxTheta))
    fail(ErrorCode::bad_option,
         std::string(function) + ": theta is " + std::to_string(options.theta) + "; it must be 1 to 1e30");
  if (s.type == "default") return;
  if (s.type != "linear" && s.type != "llama3")
    fail(ErrorCode::bad_option, std::string(function) + ": rotary scaling '" + s.type +
                                    "' is not known; the known ones are default, linear, llama3");
  check_positive(function, "the factor of rotary scaling", s.factor);
  if (s.type == "linear") return;
  check_positive(function, "low_freq_factor", s.low_freq_factor);
  check_positive(function, "high_freq_factor", s.high_freq_factor);
  if (s.high_freq_factor <= s.low_freq_factor)
    fail(ErrorCode::bad_option, std::string(function) + ": high_freq_factor is " + std::to_string(s.high_freq_factor) +
                                    ", low_freq_factor is " + std::to_string(s.low_freq_factor) +
                                    "; it must be the larger one");
  check_between(function, "original_max_position_embeddings", s.original_max_position_embeddings, 1, kMaxPosition);
}

void fill_frequencies(std::int64_t rotary_dim, const RotaryOptions& options, double* inv_freq) noexcept {
  const FloatMode mode;
  const Pair root = inverse_root(options.theta, rotary_dim / 2);
  Pair frequency{1, 0};
  for (std::int64_t t = 0; t < rotary_dim / 2; ++t, frequency = frequency * root) {
    inv_freq[t] = frequency.high;
    if (options.scaling.type == "linear") inv_freq[t] = frequency.high / options.scaling.factor;
    if (options.scaling.type == "llama3") inv_freq[t] = llama3_frequency(frequency.high, options.scaling);
  }
}

void check_angles(const char* function, std::int64_t largest_position, std::span<const double> inv_freq) {
  check_between(function, "a position", largest_position, 0, kMaxPosition);
  const double fastest = *std::max_element(inv_freq.begin(), inv_freq.end());
  if (!(static_cast<double>(largest_position) * fastest <= kAngleEnd))
    fail(ErrorCode::bad_option, std::string(function) + ": position " + std::to_string(largest_position) +
                                    " has an angle beyond 3294198; sin and cos end there");
}

template <class T>
void fill_table_row(std::int64_t position, std::span<const double> inv_freq, View<T, 1> cos, View<T, 1> sin) noexcept {
  const FloatMode mode;
  std::array<double, kMaxHalf> angles{}, values;
  const auto count = static_cast<std::int64_t>(inv_freq.size());
  for (std::size_t t = 0; t < inv_freq.size(); ++t) angles[t] = static_cast<double>(position) * inv_freq[t];
  baseline_table.f64.map(MathFunction::cos, angles.data(), values.data(), count);
  for (std::int64_t t = 0; t < count; ++t) cos(t) = static_cast<T>(values[static_cast<std::size_t>(t)]);
  baseline_table.f64.map(MathFunction::sin, angles.data(), values.data(), count);
  for (std::int64_t t = 0; t < count; ++t) sin(t) = static_cast<T>(values[static_cast<std::size_t>(t)]);
}

template void fill_table_row(std::int64_t, std::span<const double>, View<float, 1>, View<float, 1>) noexcept;
template void fill_table_row(std::int64_t, std::span<const double>, View<double, 1>, View<double, 1>) noexcept;

void rotary_frequencies(std::int64_t rotary_dim, const RotaryOptions& options, std::span<double> inv_freq) {
  constexpr const char* kName = "rotary_frequencies";
  check_rotary(kName, rotary_dim, options);
  check_equal(kName, "inv_freq", "has", static_cast<std::int64_t>(inv_freq.size()), "R / 2 is", rotary_dim / 2);
  fill_frequencies(rotary_dim, options, inv_freq.data());
}

namespace {

template <class T>
void tables(std::span<const std::int64_t> positions, std::int64_t rotary_dim, const RotaryOptions& options,
            MatrixView<T> cos, MatrixView<T> sin) {
  constexpr const char* kName = "rotary_tables";
  check_rotary(kName, rotary_dim, options);
  const auto rows = static_cast<std::int64_t>(positions.size());
  for (const Operand& table : {operand("cos", cos), operand("sin", sin)}) {
    check_view(kName, table);
    check_equal(kName, table.name, "has rows", table.extents[0], "the number of positions is", rows);
    check_equal(kName, table.name, "has columns", table.extents[1], "R / 2 is", rotary_dim / 2);
    check_writable(kName, table);
    check_apart(kName, table, operand("positions", View<const std::int64_t, 1>(positions.data(), {rows})));
  }
  check_apart(kName, operand("cos", cos), operand("sin", sin));
  std::array<double, kMaxHalf> buffer;
  const std::span<double> inv_freq(buffer.data(), static_cast<std::size_t>(rotary_dim / 2));
  fill_frequencies(rotary_dim, options, inv_freq.data());
  for (std::int64_t position : positions) check_angles(kName, position, inv_freq);
  for (std::int64_t row = 0; row < rows; ++row) {
    const auto line = [row](const MatrixView<T>& table) {
      return View<T, 1>(&table(row, 0), {table.extent(1)}, {table.stride(1)});
    };
    fill_table_row<T>(positions[static_cast<std::size_t>(row)], inv_freq, line(cos), line(sin));
  }
}

template <class T>
struct Embedding {
  View4<const T> x;
  MatrixView<const T> cos, sin;
  MatrixView<const std::int64_t> positions;
  View4<T> y;

  void check(const char* name) const {
    for (const Operand& view : {operand("x", x), operand("cos", cos), operand("sin", sin), operand("y", y)}) {
      check_view(name, view);
      check_contiguous(name, view);
    }
    check_view(name, operand("positions", positions));
    const char* const axes[4] = {"has batch", "has heads", "has length", "has head_dim"};
    for (int axis = 0; axis < 4; ++axis) check_equal(name, "y", axes[axis], y.extent(axis), "x has", x.extent(axis));
    check_equal(name, "positions", "has batch", positions.extent(0), "x has", x.extent(0));
    check_equal(name, "positions", "has length", positions.extent(1), "x has", x.extent(2));
    check_equal(name, "sin", "has rows", sin.extent(0), "cos has", cos.extent(0));
    check_equal(name, "sin", "has columns", sin.extent(1), "cos has", cos.extent(1));
    check_between(name, "head_dim", x.extent(3), 1, std::int64_t{1} << 31);
    check_between(name, "the number of columns of cos", cos.extent(1), 0, x.extent(3) / 2);
    check_writable(name, operand("y", y));
    if (y.data() != x.data() || y.strides() != x.strides()) check_apart(name, operand("y", y), operand("x", x));
    for (const Operand& input : {operand("cos", cos), operand("sin", sin), operand("positions", positions)})
      check_apart(name, operand("y", y), input);
    for (std::int64_t b = 0; b < positions.extent(0); ++b)
      for (std::int64_t i = 0; i < positions.extent(1); ++i)
        if (positions(b, i) < 0 || positions(b, i) >= cos.extent(0))
          fail(ErrorCode::bad_option, std::string(name) + ": a position is " + std::to_string(positions(b, i)) +
                                          "; it must be 0 to " + std::to_string(cos.extent(0) - 1) +
                                          ", the rows of cos and sin");
  }

  void run(RotaryPairing pairing, std::optional<Target> target) const {
    constexpr const char* kName = "rotary_embedding";
    check(kName);
    if (pairing != RotaryPairing::half_split && pairing != RotaryPairing::interleaved)
      fail(ErrorCode::bad_option, std::string(kName) + ": pairing is neither half_split nor interleaved");
    const KernelTable& table = choose_kernels(target);
    if (x.empty()) return;
    const FloatMode mode;
    RotaryTask<T> task{};
    task.width = x.extent(3), task.half = cos.extent(1), task.interleaved = pairing == RotaryPairing::interleaved;
    task.cos = cos.data(), task.sin = sin.data();
    task.cos_stride = cos.stride(0), task.sin_stride = sin.stride(0);
    task.position_stride = positions.stride(1);
    for (std::int64_t b = 0; b < x.extent(0); ++b) {
      task.x = {&x(b, 0, 0, 0), x.stride(2), x.stride(1), x.extent(2), x.extent(1)};
      task.y = {&y(b, 0, 0, 0), y.stride(2), y.stride(1), y.extent(2), y.extent(1)};
      task.positions = &positions(b, 0);
      table.kernels<T>().rotate(task);
    }
  }
};

}  // namespace

void rotary_tables(std::span<const std::int64_t> positions, std::int64_t rotary_dim, const RotaryOptions& options,
                   MatrixView<float> cos, MatrixView<float> sin) {
  tables<float>(positions, rotary_dim, options, cos, sin);
}
void rotary_tables(std::span<const std::int64_t> positions, std::int64_t rotary_dim, const RotaryOptions& options,
                   MatrixView<double> cos, MatrixView<double> sin) {
  tables<double>(positions, rotary_dim, options, cos, sin);
}

void rotary_embedding(View4<const float> x, MatrixView<const float> cos, MatrixView<const float> sin,
                      MatrixView<const std::int64_t> positions, RotaryPairing pairing, View4<float> y,
                      std::optional<Target> target) {
  Embedding<float>{x, cos, sin, positions, y}.run(pairing, target);
}
void rotary_embedding(View4<const double> x, MatrixView<const double> cos, MatrixView<const double> sin,
                      MatrixView<const std::int64_t> positions, RotaryPairing pairing, View4<double> y,
                      std::optional<Target> target) {
  Embedding<double>{x, cos, sin, positions, y}.run(pairing, target);
}

}  // namespace multihead

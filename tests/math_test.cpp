// SPDX-License-Identifier: Apache-2.0
// exp, log, tanh, erf, sin and cos of every target: errors against mpmath, special values, arrays, and the bits.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <new>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/table.hpp"
#include "problem.hpp"

namespace multihead::testing {
namespace {

struct MathPoint {
  double x, f;
  int rest;  // f(x) = f + rest / 100 of f's last place
};
#include "math_table.inc"

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kTrigEnd = 3294198;  // 2^20 pi, rounded down

// A function's points and the largest error it may have on any target, in units of the result's last place. The bounds
// stand in docs/numerics.md beside what was measured.
struct FunctionCase {
  MathFunction function;
  const char* name;
  std::span<const MathPoint> points;
  double bound;
  double low, high;  // where random arguments are drawn
};
const FunctionCase kCases[] = {
    {MathFunction::exp, "exp", kExpPoints, 1.05, -90, 90},
    {MathFunction::log, "log", kLogPoints, 0.9, 0, 4},
    {MathFunction::tanh, "tanh", kTanhPoints, 1.4, -10, 10},
    {MathFunction::erf, "erf", kErfPoints, 1.3, -6, 6},
    {MathFunction::sin, "sin", kSinPoints, 1.0, -kTrigEnd, kTrigEnd},
    {MathFunction::cos, "cos", kCosPoints, 1.0, -kTrigEnd, kTrigEnd},
};

// Hashes of the results that GoldenBits asks for, by MathFunction; fma stands for avx2, avx512 and neon.
struct Hashes {
  std::uint64_t f32_fma, f32_baseline, f64_fma, f64_baseline;
};
constexpr Hashes kHashes[] = {
    {0xe9b93ae504913f06, 0xc758b3438edd1637, 0xca04129787cf06da, 0x2cf3ba3cc050fdd7},  // exp
    {0xc5735243754096a8, 0x8dbaa6547b205927, 0x1919b9ee93af15cc, 0xb492b42bed9ba5a8},  // log
    {0x8a956c99d9084ab3, 0x9301c0c799b57c36, 0x86c236045a9d5e46, 0xc000a0e563f13cce},  // tanh
    {0xb15d4b9f547c7fb6, 0x1e5196bc95080290, 0xfcfff7b208846dd8, 0xd58de0a1b4c09f7c},  // erf
    {0x232dd78ec9561603, 0x0b5f80b2c882ad85, 0x2aa9ae2cbf84d103, 0xd5a7f8d60c5540f9},  // sin
    {0x1bf19c8ee073b925, 0xaee92804f7c7b8e0, 0x937d16dee6c32446, 0xb53321a87a7440ed},  // cos
};

template <class T>
using BitsOf = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;

// A double as a T, infinite where it is out of range.
template <class T>
T narrowed(double x) {
  const bool fits = std::fabs(x) <= static_cast<double>(std::numeric_limits<T>::max());
  return fits || std::isnan(x) ? static_cast<T>(x)
                               : std::copysign(std::numeric_limits<T>::infinity(), x > 0 ? T(1) : T(-1));
}

template <class T>
std::vector<T> map(Target target, MathFunction function, const std::vector<T>& in) {
  std::vector<T> out(in.size());
  find_kernels(target)->kernels<T>().map(function, in.data(), out.data(), static_cast<std::int64_t>(in.size()));
  return out;
}

template <class T>
T map_one(Target target, MathFunction function, double x) {
  return map<T>(target, function, {narrowed<T>(x)})[0];
}

template <class T>
bool same_bits(T a, T b) {
  return std::bit_cast<BitsOf<T>>(a) == std::bit_cast<BitsOf<T>>(b) || (std::isnan(a) && std::isnan(b));
}

// Half of them any bits at all, half uniform where the function does something.
template <class T>
std::vector<T> random_inputs(const FunctionCase& c, std::size_t count) {
  Random random(77 + static_cast<std::uint64_t>(c.function));
  std::vector<T> inputs(count);
  for (std::size_t i = 0; i < count; ++i)
    inputs[i] = i % 2 ? static_cast<T>(c.low + (c.high - c.low) * random.uniform())
                      : std::bit_cast<T>(static_cast<BitsOf<T>>(random.bits()));
  return inputs;
}

template <class T>
class Math : public ::testing::Test {};
using Types = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Math, Types);

template <class T>
double worst_error(const FunctionCase& c, Target target) {
  constexpr int kDigits = std::numeric_limits<T>::digits;
  constexpr int kLowest = std::numeric_limits<T>::min_exponent - kDigits;
  std::vector<MathPoint> points;
  std::vector<T> in;
  for (const MathPoint& p : c.points) {
    const T x = narrowed<T>(p.x);
    const bool in_range = std::isfinite(narrowed<T>(p.f));
    const bool flushed = c.function == MathFunction::exp && p.f < static_cast<double>(std::numeric_limits<T>::min());
    if (static_cast<double>(x) == p.x && in_range && !flushed) points.push_back(p), in.push_back(x);
  }
  EXPECT_GT(points.size(), 200u);
  const std::vector<T> out = map(target, c.function, in);
  double worst = 0;
  for (std::size_t i = 0; i < points.size(); ++i) {
    int exponent = 0;
    std::frexp(points[i].f, &exponent);
    const double missing = std::ldexp(points[i].rest / 100.0, std::max(exponent - 53, -1074) - exponent);
    const double error = std::ldexp(static_cast<double>(out[i]) - points[i].f, -exponent) - missing;
    const double ulps = std::ldexp(std::fabs(error), exponent - std::max(exponent - kDigits, kLowest));
    if (!(ulps <= worst)) worst = ulps;
    EXPECT_LE(ulps, c.bound) << c.name << " of " << points[i].x << " is " << out[i] << ", not " << points[i].f;
  }
  return worst;
}

TYPED_TEST(Math, ErrorsStayWithinTheirBounds) {
  for (const Target target : available_targets())
    for (const FunctionCase& c : kCases) {
      SCOPED_TRACE(target_name(target));
      const double worst = worst_error<TypeParam>(c, target);
      this->RecordProperty(std::string(target_name(target)) + "_" + c.name, std::to_string(worst));
    }
}

struct SpecialCase {
  MathFunction function;
  double x, wanted;
};
constexpr SpecialCase kSpecialCases[] = {
    {MathFunction::exp, 0.0, 1},
    {MathFunction::exp, -0.0, 1},
    {MathFunction::exp, kInfinity, kInfinity},
    {MathFunction::exp, -kInfinity, 0},
    {MathFunction::exp, 1e5, kInfinity},
    {MathFunction::exp, -1e5, 0},
    {MathFunction::log, 1, 0.0},
    {MathFunction::log, 0.0, -kInfinity},
    {MathFunction::log, -0.0, -kInfinity},
    {MathFunction::log, kInfinity, kInfinity},
    {MathFunction::log, -kInfinity, kNan},
    {MathFunction::log, -1, kNan},
    {MathFunction::tanh, kInfinity, 1},
    {MathFunction::tanh, -kInfinity, -1},
    {MathFunction::tanh, 30, 1},
    {MathFunction::erf, kInfinity, 1},
    {MathFunction::erf, -kInfinity, -1},
    {MathFunction::erf, 30, 1},
    {MathFunction::sin, kInfinity, kNan},
    {MathFunction::sin, -kInfinity, kNan},
    {MathFunction::sin, 1e30, kNan},
    {MathFunction::sin, 3294199, kNan},
    {MathFunction::sin, -3294199, kNan},
    {MathFunction::cos, kInfinity, kNan},
    {MathFunction::cos, -kInfinity, kNan},
    {MathFunction::cos, 1e30, kNan},
    {MathFunction::cos, 3294199, kNan},
    {MathFunction::cos, -3294199, kNan},
    {MathFunction::cos, 0.0, 1},
    {MathFunction::cos, -0.0, 1},
};

TYPED_TEST(Math, SpecialValues) {
  using T = TypeParam;
  for (const Target target : available_targets())
    for (const SpecialCase& c : kSpecialCases)
      EXPECT_TRUE(same_bits(map_one<T>(target, c.function, c.x), narrowed<T>(c.wanted)))
          << kCases[static_cast<int>(c.function)].name << " of " << c.x << " on " << target_name(target);
}

// Zeros keep their sign, subnormal numbers their value; log leaves their range.
TYPED_TEST(Math, TinyArguments) {
  using T = TypeParam;
  const double tiny = static_cast<double>(std::numeric_limits<T>::denorm_min());
  for (const Target target : available_targets()) {
    SCOPED_TRACE(target_name(target));
    for (const MathFunction function : {MathFunction::tanh, MathFunction::erf, MathFunction::sin})
      for (const double x : {0.0, -0.0, tiny, -tiny})
        EXPECT_TRUE(same_bits(map_one<T>(target, function, x), static_cast<T>(x))) << x;
    EXPECT_EQ(map_one<T>(target, MathFunction::exp, tiny), T(1));
    EXPECT_EQ(map_one<T>(target, MathFunction::cos, tiny), T(1));
    EXPECT_LT(map_one<T>(target, MathFunction::log, tiny), T(-100));
    EXPECT_TRUE(std::isnan(map_one<T>(target, MathFunction::log, -tiny)));
  }
}

// The last argument on each side whose result is a number, and the next one.
TYPED_TEST(Math, EdgesOfTheRange) {
  using T = TypeParam;
  const T normal = sizeof(T) == 4 ? T(-0x1.5d589ep6) : T(-0x1.6232bdd7abcd2p9);
  const T finite = sizeof(T) == 4 ? T(0x1.62e42ep6) : T(0x1.62e42fefa39efp9);
  const T infinity = std::numeric_limits<T>::infinity();
  for (const Target target : available_targets()) {
    SCOPED_TRACE(target_name(target));
    const std::vector<T> y =
        map<T>(target, MathFunction::exp,
               {normal, std::nextafter(normal, -infinity), finite, std::nextafter(finite, infinity)});
    EXPECT_GE(y[0], std::numeric_limits<T>::min());
    EXPECT_TRUE(same_bits(y[1], T(0)));
    EXPECT_LT(y[2], infinity);
    EXPECT_EQ(y[3], infinity);
    for (const MathFunction function : {MathFunction::sin, MathFunction::cos})
      for (const double x : {kTrigEnd, -kTrigEnd}) EXPECT_FALSE(std::isnan(map_one<T>(target, function, x))) << x;
  }
}

// NaNs of any sign and payload, which exponents built from bits could turn into numbers.
TYPED_TEST(Math, EveryNanStaysOne) {
  using T = TypeParam;
  using Bits = BitsOf<T>;
  const Bits infinity = std::bit_cast<Bits>(std::numeric_limits<T>::infinity());
  Random random(5);
  std::vector<T> nans;
  for (int i = 0; i < 1000; ++i) nans.push_back(std::bit_cast<T>(static_cast<Bits>(random.bits() | infinity | 1)));
  for (const Target target : available_targets())
    for (const FunctionCase& c : kCases)
      for (const T y : map(target, c.function, nans)) ASSERT_TRUE(std::isnan(y)) << c.name << target_name(target);
}

TYPED_TEST(Math, OddAndEven) {
  using T = TypeParam;
  for (const Target target : available_targets())
    for (const FunctionCase& c : kCases) {
      if (c.function == MathFunction::exp || c.function == MathFunction::log) continue;
      std::vector<T> x = random_inputs<T>(c, 10000);
      const std::vector<T> y = map(target, c.function, x);
      for (T& value : x) value = -value;
      const std::vector<T> mirrored = map(target, c.function, x);
      for (std::size_t i = 0; i < x.size(); ++i)
        ASSERT_TRUE(same_bits(mirrored[i], c.function == MathFunction::cos ? y[i] : -y[i]))
            << c.name << " of " << x[i] << " on " << target_name(target);
    }
}

// Pages with one behind them that may not be touched.
class GuardedPages {
 public:
  GuardedPages() {
    void* start = mmap(nullptr, 2 * size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) throw std::bad_alloc();
    start_ = static_cast<std::byte*>(start);
    mprotect(start_ + size_, size_, PROT_NONE);
  }
  ~GuardedPages() { munmap(start_, 2 * size_); }
  GuardedPages(const GuardedPages&) = delete;
  // The last count numbers before the guard.
  template <class T>
  T* last(std::size_t count) const {
    return reinterpret_cast<T*>(start_ + size_) - count;
  }

 private:
  std::size_t size_ = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  std::byte* start_ = nullptr;
};

TYPED_TEST(Math, ArraysOfEveryLengthTouchNothingBeyond) {
  using T = TypeParam;
  constexpr std::size_t kMost = 40;
  const GuardedPages in_pages, out_pages;
  for (const Target target : available_targets())
    for (const FunctionCase& c : kCases) {
      const std::vector<T> x = random_inputs<T>(c, kMost);
      std::vector<T> wanted;
      for (const T value : x) wanted.push_back(map<T>(target, c.function, {value})[0]);
      for (std::size_t count = 0; count <= kMost; ++count) {
        T* in = in_pages.last<T>(count);
        T* out = out_pages.last<T>(count + 1);  // one more number behind, and one before
        std::copy_n(x.begin(), count, in);
        std::fill_n(out - 1, count + 2, T(77));
        const auto check = [&](const T* got) {
          for (std::size_t i = 0; i < count; ++i)
            ASSERT_TRUE(same_bits(got[i], wanted[i])) << c.name << target_name(target) << count << " " << i;
        };
        const auto run = find_kernels(target)->kernels<T>().map;
        run(c.function, in, out, static_cast<std::int64_t>(count));
        check(out);
        ASSERT_EQ(out[-1], T(77));
        ASSERT_EQ(out[count], T(77));
        run(c.function, in, in, static_cast<std::int64_t>(count));
        check(in);
      }
    }
}

std::vector<Target> fma_targets() {
  std::vector<Target> targets = available_targets();
  std::erase(targets, Target::baseline);
  return targets;
}

TYPED_TEST(Math, TargetsWithFmaGiveTheSameBits) {
  using T = TypeParam;
  const std::vector<Target> targets = fma_targets();
  if (targets.size() < 2) GTEST_SKIP() << "this machine runs fewer than two targets with fma";
  for (const FunctionCase& c : kCases) {
    const std::vector<T> x = random_inputs<T>(c, quick_share() ? 100000 : 1000000);
    const std::vector<T> first = map(targets[0], c.function, x);
    for (std::size_t other = 1; other < targets.size(); ++other) {
      const std::vector<T> second = map(targets[other], c.function, x);
      for (std::size_t i = 0; i < x.size(); ++i)
        ASSERT_TRUE(same_bits(first[i], second[i])) << c.name << " of " << x[i] << ": " << first[i] << second[i];
    }
  }
}

// The same from every compiler, at every level of optimisation, on every machine.
TYPED_TEST(Math, GoldenBits) {
  using T = TypeParam;
  for (const FunctionCase& c : kCases) {
    std::vector<T> x = random_inputs<T>(c, 20000);
    for (const MathPoint& p : c.points) x.push_back(narrowed<T>(p.x));
    const Hashes& h = kHashes[static_cast<int>(c.function)];
    const std::uint64_t fma = sizeof(T) == 4 ? h.f32_fma : h.f64_fma;
    const std::uint64_t baseline = sizeof(T) == 4 ? h.f32_baseline : h.f64_baseline;
    for (const Target target : available_targets()) {
      const std::vector<T> y = map(target, c.function, x);
      const std::uint64_t hash = hash_bits(View<const T, 1>(y, {static_cast<std::int64_t>(y.size())}));
      EXPECT_EQ(hash, target == Target::baseline ? baseline : fma)
          << c.name << " on " << target_name(target) << std::hex << ": 0x" << hash;
    }
  }
}

}  // namespace
}  // namespace multihead::testing

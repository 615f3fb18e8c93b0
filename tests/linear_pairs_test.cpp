// SPDX-License-Identifier: Apache-2.0
// Products of bfloat16 by pairs and by tiles: bit for bit what the instructions make of the order that the kernels
// promise, for numbers of every kind; within the bound of that order; and several products at once.
#include <gtest/gtest.h>

#include "core/scratch.hpp"
#include "kernels/matmul.hpp"
#include "layer/packed_linear.hpp"
#include "multihead/linear.hpp"
#include "pair_model.hpp"

namespace multihead::testing {
namespace {

std::vector<Target> pair_targets() {
  std::vector<Target> targets;
  for (Target target : available_targets())
    if (multiplies_pairs(target, Type::bfloat16)) targets.push_back(target);
  return targets;
}

// Rows with something after each that must not be read, and a weight.
struct PairProblem {
  std::int64_t rows, in, out, stride;
  std::vector<BFloat16> x, weight;
  std::vector<float> bias;

  template <class Number>
  PairProblem(std::array<std::int64_t, 3> extents, std::int64_t padding, const Number& number)
      : rows(extents[0]), in(extents[1]), out(extents[2]), stride(in + padding) {
    for (std::int64_t i = 0; i < rows * stride; ++i)
      x.push_back(i % stride < in ? number() : BFloat16::from_bits(0x7FC0));
    for (std::int64_t i = 0; i < in * out + 1; ++i) weight.push_back(number());
    for (std::int64_t i = 0; i < out; ++i) bias.push_back(static_cast<float>(number()));
    x.push_back(BFloat16::from_bits(0x7FC0));
  }
  MatrixView<const BFloat16> x_view() const { return {x.data(), {rows, in}, {stride, 1}}; }
  MatrixView<const BFloat16> weight_view() const { return {weight.data(), {in, out}}; }
  std::vector<float> run(Target target, int threads = 1) const {
    std::vector<float> y(static_cast<std::size_t>(rows * out + 1));
    Linear<BFloat16>(weight_view(), WeightOrder::in_out)
        .forward(x_view(), MatrixView<float>(y.data(), {rows, out}), Activation::none,
                 {.threads = threads, .target = target});
    for (std::int64_t i = 0; i < rows * out; ++i)
      y[static_cast<std::size_t>(i)] += bias[static_cast<std::size_t>(i % out)];
    return y;
  }
  float x_at(std::int64_t row, std::int64_t i) const {
    return i < in ? static_cast<float>(x[static_cast<std::size_t>(row * stride + i)]) : 0;
  }
  float weight_at(std::int64_t i, std::int64_t column) const {
    return i < in ? static_cast<float>(weight[static_cast<std::size_t>(i * out + column)]) : 0;
  }

  // Blocks of 256 elements, each a chain of pairs from zero, the odd element first.
  float by_pairs(std::int64_t row, std::int64_t column) const {
    float sum = 0;
    for (std::int64_t first = 0; first < in; first += kInnerBlock) {
      float block = 0;
      for (std::int64_t i = first; i < std::min(in, first + kInnerBlock); i += 2)
        block = step(x_at(row, i), weight_at(i, column), step(x_at(row, i + 1), weight_at(i + 1, column), block));
      sum = first == 0 ? block : sum + block;
    }
    return sum;
  }
  // Steps of 32 elements, each two chains from zero, of the even elements and of the odd ones.
  float by_tiles(std::int64_t row, std::int64_t column) const {
    float sum = 0;
    for (std::int64_t first = 0; first < in; first += 32) {
      float even = 0, odd = 0;
      for (std::int64_t i = first; i < first + 32; i += 2) {
        even = step(x_at(row, i), weight_at(i, column), even);
        odd = step(x_at(row, i + 1), weight_at(i + 1, column), odd);
      }
      sum = no_subnormal(sum + no_subnormal(even + odd));
    }
    return sum;
  }
};

TEST(LinearOfPairs, BitsAreThoseOfTheInstructionsInTheirOrder) {
  Draw draw(41);
  Random random(41);
  const auto any = [&] { return BFloat16::from_bits(static_cast<std::uint16_t>(draw.half())); };
  const auto usual = [&] { return BFloat16(static_cast<float>(random.normal())); };
  std::vector<std::array<std::int64_t, 3>> extents{{1, 1, 1},    {3, 0, 5},     {0, 4, 3},     {33, 257, 49},
                                                   {17, 31, 16}, {97, 70, 100}, {5, 1050, 33}, {40, 64, 96},
                                                   {16, 513, 1}, {31, 769, 17}};
  for (int i = 0; i < (quick_share() ? 5 : 40); ++i)
    extents.push_back({random.between(1, 100), random.between(1, 600), random.between(1, 110)});
  for (Target target : pair_targets())
    for (const auto& e : extents) {
      const std::int64_t padding = random.between(0, 3);
      const PairProblem p =
          random.chance(40) && e[1] < 40 ? PairProblem(e, padding, any) : PairProblem(e, padding, usual);
      const std::vector<float> y = p.run(target, static_cast<int>(random.between(1, 3)));
      for (std::int64_t row = 0; row < p.rows; ++row)
        for (std::int64_t column = 0; column < p.out; ++column) {
          const float sum = target == Target::amx ? p.by_tiles(row, column) : p.by_pairs(row, column);
          const float expected = sum + p.bias[static_cast<std::size_t>(column)];
          const float got = y[static_cast<std::size_t>(row * p.out + column)];
          ASSERT_TRUE(alike(got, expected))
              << target_name(target) << " " << e[0] << "x" << e[1] << "x" << e[2] << " row " << row << " column "
              << column << ": " << got << ", not " << expected;
        }
    }
}

// An element takes part in so many roundings at most: of its chain, of those of the blocks or steps, and of the bias.
double roundings(Target target, std::int64_t in) {
  const auto steps = [&](std::int64_t width) { return (in + width - 1) / width; };
  return static_cast<double>(target == Target::amx ? 16 + 1 + steps(32) + 1
                                                   : std::min<std::int64_t>(in, kInnerBlock) + steps(kInnerBlock) + 1);
}

// |error| <= n u / (1 - n u) sum |x w|, u = 2^-24 (Higham 2002, section 3.1). The worst share is printed for
// docs/numerics.md.
TEST(LinearOfPairs, EveryWidthIsWithinTheBoundOfItsOrder) {
  Random random(42);
  for (Target target : pair_targets()) {
    double worst = 0;
    for (std::int64_t in = 1; in <= 300; in += quick_share() ? 13 : 1) {
      const double scale = random.pick({1.0, 10.0, 100.0});
      const auto number = [&] { return BFloat16(static_cast<float>(random.normal() * scale)); };
      const PairProblem p({random.between(1, 20), in, random.between(1, 20)}, random.between(0, 2), number);
      const std::vector<float> y = p.run(target);
      const double n = roundings(target, in) * 0x1p-24, bound = n / (1 - n);
      for (std::int64_t row = 0; row < p.rows; ++row)
        for (std::int64_t column = 0; column < p.out; ++column) {
          double sum = static_cast<double>(p.bias[static_cast<std::size_t>(column)]), size = std::fabs(sum);
          for (std::int64_t i = 0; i < in; ++i) {
            const double term = static_cast<double>(p.x_at(row, i)) * static_cast<double>(p.weight_at(i, column));
            sum += term, size += std::fabs(term);
          }
          const double error = std::fabs(static_cast<double>(y[static_cast<std::size_t>(row * p.out + column)]) - sum);
          EXPECT_LE(error, bound * size) << target_name(target) << " in " << in;
          worst = std::max(worst, error / (bound * size));
        }
    }
    std::printf("%s: worst share of the bound %.2f\n", std::string(target_name(target)).c_str(), worst);
  }
}

// Products of several sizes share one call's tasks.
TEST(LinearOfPairs, SeveralProductsAtOnceHaveTheBitsOfEach) {
  Random random(43);
  const auto number = [&] { return BFloat16(static_cast<float>(random.normal())); };
  std::vector<PairProblem> problems;
  for (const std::array<std::int64_t, 3>& e :
       {std::array<std::int64_t, 3>{200, 60, 130}, {0, 9, 5}, {1, 300, 49}, {97, 33, 0}, {40, 0, 7}})
    problems.emplace_back(e, 1, number);
  for (Target target : available_targets()) {
    const KernelTable& table = choose_kernels(target);
    std::vector<PackedLinear<BFloat16>> packed(problems.size());
    std::vector<std::vector<float>> together, apart;
    std::vector<NarrowProduct<BFloat16, float>> products;
    Scratch scratch(3 * narrow_product_scratch(), {}, "test");
    std::byte* const memory = scratch.take<std::byte>(3 * narrow_product_scratch());
    for (std::size_t i = 0; i < problems.size(); ++i) {
      const PairProblem& p = problems[i];
      pack_columns("test", p.weight_view(), p.out, kSameColumn, packed[i]);
      together.emplace_back(static_cast<std::size_t>(p.rows * p.out + 1));
      apart.emplace_back(together.back());
      const float* const bias = p.bias.empty() ? nullptr : p.bias.data();
      products.push_back({p.x_view(), MatrixView<float>(together.back().data(), {p.rows, p.out}),
                          packed[i].panels.data(), bias, Activation::gelu});
      NarrowProduct<BFloat16, float> alone = products.back();
      alone.c = MatrixView<float>(apart.back().data(), {p.rows, p.out});
      run_narrow_product(alone, 1, {}, table, memory);
    }
    run_narrow_products(std::span<const NarrowProduct<BFloat16, float>>(products), 3, {}, table, memory);
    for (std::size_t i = 0; i < problems.size(); ++i)
      for (std::size_t at = 0; at < apart[i].size(); ++at)
        ASSERT_EQ(to_bits(together[i][at]), to_bits(apart[i][at])) << target_name(target) << " product " << i;
  }
}

// The place of an element is where the packing puts it, and all else is zero.
template <class T>
void expect_places(std::int64_t in, std::int64_t out) {
  std::vector<T> weight;
  for (std::int64_t i = 0; i < in * out; ++i) weight.push_back(T::from_bits(static_cast<std::uint16_t>(i + 1)));
  PackedLinear<T> packed;
  pack_columns("test", MatrixView<const T>(weight.data(), {in, out}), out, kSameColumn, packed);
  ASSERT_EQ(packed.panels.size(), packed_elements<T>(in, out));
  std::int64_t others = 0;
  for (std::int64_t i = 0; i < packed.panels.size(); ++i) others += packed.panels.data()[i].bits != 0 ? 1 : 0;
  EXPECT_EQ(others, in * out);
  for (std::int64_t i = 0; i < in; ++i)
    for (std::int64_t column = 0; column < out; ++column) {
      const std::int64_t block = column / kRowBlock * kRowBlock * packed_inner<T>(in);
      EXPECT_EQ(packed.panels.data()[block + packed_place<T>(i, column % kRowBlock)].bits, i * out + column + 1);
    }
}

TEST(LinearOfPairs, PackedElementsStandInTheirPlaces) {
  for (std::int64_t in : {1, 2, 31, 32, 33})
    for (std::int64_t out : {1, 47, 48, 100}) expect_places<BFloat16>(in, out), expect_places<Float16>(in, out);
}

}  // namespace
}  // namespace multihead::testing

// SPDX-License-Identifier: Apache-2.0
// multihead sample: the chapter's example, from X to the output.
#include <cmath>
#include <filesystem>
#include <iostream>
#include <stdexcept>
#include <string>
#include <utility>

#include "arguments.hpp"
#include "chapter.hpp"
#include "print.hpp"
#include "terminal.hpp"
#include "trace.hpp"

namespace multihead::cli {

namespace {

// The trace and the library compute the same sums in other orders, on numbers near 1.
constexpr double kAgreement = 1e-12;

void require_agreement(const std::string& what, double traced, double computed) {
  if (!(std::abs(traced - computed) <= kAgreement))
    throw std::logic_error("sample: " + what + " is " + std::to_string(computed) + ", the trace has " +
                           std::to_string(traced) + "; they must agree within 1e-12");
}

void check_trace(const Trace& trace, MatrixView<const double> output, View3<const double> weights) {
  for (std::int64_t i = 0; i < output.extent(0); ++i)
    for (std::int64_t j = 0; j < output.extent(1); ++j)
      require_agreement("the output", trace.output(i, j), output(i, j));
  for (std::int64_t h = 0; h < weights.extent(0); ++h)
    for (std::int64_t i = 0; i < weights.extent(1); ++i)
      for (std::int64_t j = 0; j < weights.extent(2); ++j)
        require_agreement("a weight", trace.heads[static_cast<std::size_t>(h)].weights(i, j), weights(h, i, j));
}

void save(const Inputs& in, const std::string& folder) {
  for (const auto& [name, matrix] : {std::pair{"X", in.X}, std::pair{"Wq", in.Wq}, std::pair{"Wk", in.Wk},
                                     std::pair{"Wv", in.Wv}, std::pair{"Wo", in.Wo}}) {
    const std::span<const double> values(matrix.data(), static_cast<std::size_t>(matrix.extent(0) * matrix.extent(1)));
    write_npy(std::filesystem::path(folder) / (std::string(name) + ".npy"), values, matrix.extents());
  }
}

}  // namespace

int sample(const SampleArguments& arguments, const Common& common) {
  const Inputs in{chapter::kX, chapter::kWq, chapter::kWk, chapter::kWv, chapter::kWo, arguments.heads};
  const std::int64_t n = in.X.extent(0);
  LayerOptions options;
  options.threads = common.threads;
  options.target = common.target;
  Matrix<double> output(n, in.Wo.extent(1));
  std::vector<double> weight_values(static_cast<std::size_t>(in.heads * n * n));
  const View3<double> weights(weight_values.data(), {in.heads, n, n});
  multi_head_attention(in.X, in.Wq, in.Wk, in.Wv, in.Wo, in.heads, output, options, {weights, {}});

  if (!arguments.save.empty()) save(in, arguments.save);
  if (arguments.trace) {
    const Trace trace = trace_of(in);
    check_trace(trace, output, weights);
    print_trace(std::cout, in, trace, color_depth(arguments.color));
  } else {
    std::cout << "X\n";
    for (const Block::Line& line : matrix_block("", in.X, 0).lines) std::cout << line.text << '\n';
    std::cout << '\n';
  }
  print_output(std::cout, output);
  return 0;
}

}  // namespace multihead::cli

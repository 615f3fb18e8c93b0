// SPDX-License-Identifier: Apache-2.0
// Multi-head attention in plain loops, every number between X and the output kept and shown.
#include "trace.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "print.hpp"

namespace multihead::cli {

namespace {

Matrix<double> product(MatrixView<const double> a, MatrixView<const double> b) {
  Matrix<double> c(a.extent(0), b.extent(1));
  for (std::int64_t i = 0; i < a.extent(0); ++i)
    for (std::int64_t j = 0; j < b.extent(1); ++j)
      for (std::int64_t k = 0; k < a.extent(1); ++k) c(i, j) += a(i, k) * b(k, j);
  return c;
}

MatrixView<const double> transposed(MatrixView<const double> a) {
  return {a.data(), {a.extent(1), a.extent(0)}, {a.stride(1), a.stride(0)}};
}

// Columns [head * width, (head + 1) * width), width = columns / heads.
MatrixView<const double> head_columns(MatrixView<const double> a, int heads, int head) {
  const std::int64_t width = a.extent(1) / heads;
  return {a.data() + head * width * a.stride(1), {a.extent(0), width}, a.strides()};
}

Matrix<double> softmax(const Matrix<double>& scores) {
  Matrix<double> weights(scores.rows(), scores.columns());
  for (std::int64_t i = 0; i < scores.rows(); ++i) {
    double largest = -std::numeric_limits<double>::infinity(), sum = 0;
    for (std::int64_t j = 0; j < scores.columns(); ++j) largest = std::max(largest, scores(i, j));
    for (std::int64_t j = 0; j < scores.columns(); ++j) sum += weights(i, j) = std::exp(scores(i, j) - largest);
    for (std::int64_t j = 0; j < scores.columns(); ++j) weights(i, j) /= sum;
  }
  return weights;
}

HeadTrace head_of(const Inputs& in, int head) {
  HeadTrace steps;
  steps.Wq = head_columns(in.Wq, in.heads, head);
  steps.Wk = head_columns(in.Wk, in.heads, head);
  steps.Wv = head_columns(in.Wv, in.heads, head);
  steps.Q = product(in.X, steps.Wq);
  steps.K = product(in.X, steps.Wk);
  steps.V = product(in.X, steps.Wv);
  steps.scores = product(steps.Q, transposed(steps.K));
  const double root = std::sqrt(static_cast<double>(steps.Q.columns()));
  for (std::int64_t i = 0; i < steps.scores.rows(); ++i)
    for (std::int64_t j = 0; j < steps.scores.columns(); ++j) steps.scores(i, j) /= root;
  steps.weights = softmax(steps.scores);
  steps.output = product(steps.weights, steps.V);
  return steps;
}

// "name (rows x columns)" over the matrix.
Block titled(const std::string& name, MatrixView<const double> matrix) {
  const std::string shape = std::to_string(matrix.extent(0)) + " x " + std::to_string(matrix.extent(1));
  return matrix_block(name + " (" + shape + ")", matrix, decimals_of(matrix));
}

std::string columns_text(MatrixView<const double> block, int head) {
  const std::int64_t first = head * block.extent(1), last = first + block.extent(1) - 1;
  return first == last ? "column " + std::to_string(first)
                       : "columns " + std::to_string(first) + " to " + std::to_string(last);
}

void print_head(std::ostream& out, const HeadTrace& steps, int head, ColorDepth depth) {
  const std::string h = std::to_string(head);
  out << "Head " << h << ": " << columns_text(steps.Wq, head) << " of Wq, Wk and Wv\n\n";
  print_blocks(out, {titled("Wq" + h, steps.Wq), titled("Wk" + h, steps.Wk), titled("Wv" + h, steps.Wv)});
  print_blocks(out, {titled("Q" + h + " = X Wq" + h, steps.Q), titled("K" + h + " = X Wk" + h, steps.K),
                     titled("V" + h + " = X Wv" + h, steps.V)});
  const std::string root = "sqrt(" + std::to_string(steps.Q.columns()) + ")";
  const std::string n = std::to_string(steps.weights.rows());
  print_blocks(out, {titled("scores = Q" + h + " K" + h + "^T / " + root, steps.scores)});
  print_blocks(out,
               {heatmap("weights = softmax of each row of the scores (" + n + " x " + n + ")", steps.weights, depth)});
  print_blocks(out, {titled("head " + h + " = weights V" + h, steps.output)});
}

}  // namespace

Trace trace_of(const Inputs& in) {
  Trace trace;
  trace.concat = Matrix<double>(in.X.extent(0), in.Wv.extent(1));
  for (int head = 0; head < in.heads; ++head) {
    trace.heads.push_back(head_of(in, head));
    const Matrix<double>& output = trace.heads.back().output;
    for (std::int64_t i = 0; i < output.rows(); ++i)
      for (std::int64_t j = 0; j < output.columns(); ++j) trace.concat(i, head * output.columns() + j) = output(i, j);
  }
  trace.output = product(trace.concat, in.Wo);
  return trace;
}

void print_trace(std::ostream& out, const Inputs& in, const Trace& trace, ColorDepth depth) {
  out << "Multi-head attention with " << in.heads << (in.heads == 1 ? " head" : " heads") << ", step by step\n\n";
  print_blocks(out, {titled("X", in.X)});
  for (int head = 0; head < in.heads; ++head) print_head(out, trace.heads[static_cast<std::size_t>(head)], head, depth);
  out << (in.heads == 1 ? "The head's output is multiplied by Wo\n\n"
                        : "The heads' outputs stand side by side and are multiplied by Wo, which mixes them\n\n");
  std::string names = "head 0";
  for (int head = 1; head < in.heads; ++head) names += " | head " + std::to_string(head);
  print_blocks(out, {titled(names, trace.concat)});
  print_blocks(out, {titled("Wo", in.Wo)});
  print_blocks(out, {titled("[" + names + "] Wo", trace.output)});
}

}  // namespace multihead::cli

// SPDX-License-Identifier: Apache-2.0
// multihead attend: multi-head attention from .npy files to .npy files.
#include <array>
#include <exception>
#include <filesystem>
#include <iostream>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "print.hpp"

namespace multihead::cli {

namespace {

struct Input {
  const char* option;
  const std::string& path;
  Array array;
};

// In the order X, Wq, Wk, Wv, Wo. Throws unless they are matrices of one type.
std::array<Input, 5> read_inputs(const AttendArguments& arguments) {
  std::array<Input, 5> inputs{{{"--x", arguments.X, {}},
                               {"--wq", arguments.Wq, {}},
                               {"--wk", arguments.Wk, {}},
                               {"--wv", arguments.Wv, {}},
                               {"--wo", arguments.Wo, {}}}};
  for (Input& input : inputs) {
    input.array = read_npy(input.path);
    const std::string name = "attend: " + std::string(input.option) + " " + input.path;
    if (input.array.shape.size() != 2)
      throw Error(ErrorCode::shape_mismatch,
                  name + " has shape " + shape_text(input.array.shape) + "; it must be a matrix, with two axes");
    if (input.array.type != ElementType::float32 && input.array.type != ElementType::float64)
      throw Error(ErrorCode::bad_option,
                  name + " holds " + std::string(type_name(input.array.type)) + "; it must hold float32 or float64");
    const Input& first = inputs.front();
    if (input.array.type != first.array.type)
      throw Error(ErrorCode::bad_option,
                  name + " holds " + std::string(type_name(input.array.type)) + ", " + first.option + " " + first.path +
                      " holds " + std::string(type_name(first.array.type)) + "; all inputs must be of one type");
  }
  return inputs;
}

// Two results in one file would leave the second alone.
void check_results(const AttendArguments& arguments) {
  const std::array results{
      std::pair{"--out", std::filesystem::path(arguments.out).lexically_normal()},
      std::pair{"--weights", std::filesystem::path(arguments.weights).lexically_normal()},
      std::pair{"--mean-weights", std::filesystem::path(arguments.mean_weights).lexically_normal()}};
  for (std::size_t i = 0; i < results.size(); ++i)
    for (std::size_t j = i + 1; j < results.size(); ++j)
      if (!results[i].second.empty() && results[i].second == results[j].second)
        throw Error(ErrorCode::bad_option, std::string("attend: ") + results[i].first + " and " + results[j].first +
                                               " name one file, " + results[i].second.string() + "; they must differ");
}

template <class T>
MatrixView<const T> matrix_of(const Input& input) {
  return {input.array.values<T>().data(), {input.array.shape[0], input.array.shape[1]}};
}

// Zeros for extents whose product may be past any memory.
template <class T>
std::vector<T> room_for(const char* what, const std::vector<std::int64_t>& shape) {
  std::int64_t count = 1;
  bool fits = true;
  for (std::int64_t extent : shape) fits = fits && !__builtin_mul_overflow(count, extent, &count);
  try {
    return std::vector<T>(fits ? static_cast<std::size_t>(count) : std::vector<T>().max_size() + 1);
  } catch (const std::exception&) {
    throw Error(ErrorCode::out_of_memory,
                std::string("attend: ") + what + " of shape " + shape_text(shape) + " cannot be allocated");
  }
}

template <class T>
int attend_as(const std::array<Input, 5>& inputs, const AttendArguments& arguments, const Common& common) {
  const auto& [X, Wq, Wk, Wv, Wo] = inputs;
  const std::int64_t n = X.array.shape[0];
  LayerOptions options;
  options.threads = common.threads;
  options.target = common.target;
  // Heads past the width are left for the library to refuse: room for their weights might not exist.
  const bool plausible = arguments.heads <= Wq.array.shape[1];
  std::vector<std::int64_t> per_head_shape{arguments.heads, n, n}, mean_shape{n, n};
  std::vector<T> per_head, mean;
  HeadWeights<T> weights;
  if (plausible && !arguments.weights.empty()) {
    per_head = room_for<T>("weights", per_head_shape);
    weights.per_head = View3<T>(per_head.data(), {arguments.heads, n, n});
  }
  if (plausible && !arguments.mean_weights.empty()) {
    mean = room_for<T>("mean weights", mean_shape);
    weights.mean = MatrixView<T>(mean.data(), {n, n});
  }
  Matrix<T> output(n, Wo.array.shape[1]);
  multi_head_attention(matrix_of<T>(X), matrix_of<T>(Wq), matrix_of<T>(Wk), matrix_of<T>(Wv), matrix_of<T>(Wo),
                       arguments.heads, output, options, weights);

  std::vector<std::vector<std::string>> rows;
  const auto write = [&](const char* what, const std::string& path, std::span<const T> values,
                         const std::vector<std::int64_t>& shape) {
    if (path.empty()) return;
    write_npy(path, values, shape);
    rows.push_back({what, shape_text(shape), std::string(type_name(inputs.front().array.type)), path});
  };
  write("output", arguments.out, output.values(), {n, output.columns()});
  write("weights", arguments.weights, per_head, per_head_shape);
  write("mean weights", arguments.mean_weights, mean, mean_shape);
  print_table(std::cout, rows);
  return 0;
}

}  // namespace

int attend(const AttendArguments& arguments, const Common& common) {
  check_results(arguments);
  const std::array<Input, 5> inputs = read_inputs(arguments);
  return inputs.front().array.type == ElementType::float32 ? attend_as<float>(inputs, arguments, common)
                                                           : attend_as<double>(inputs, arguments, common);
}

}  // namespace multihead::cli

// SPDX-License-Identifier: Apache-2.0
// An encoder that answers compare.py: for each line "IDS SEQUENCES LENGTH REPEATS" on standard input, the seconds of
// one forward pass, on the clock and of the processor, and its output in a file beside IDS.
#include <chrono>
#include <cstdint>
#include <ctime>
#include <exception>
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include "multihead/encoder.hpp"
#include "multihead/io.hpp"

namespace {

using namespace multihead;

struct Seconds {
  double wall, processor;
};

Seconds seconds_of(const Encoder& encoder, const EncoderInput& input, MatrixView<float> output, int repeats,
                   const LayerOptions& options) {
  const std::clock_t processor = std::clock();
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < repeats; ++i) encoder.forward(input, output, options);
  const double wall = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return {wall / repeats, static_cast<double>(std::clock() - processor) / CLOCKS_PER_SEC / repeats};
}

Type products_of(const std::string& name) {
  for (const Type type : {Type::float32, Type::bfloat16})
    if (type_name(type) == name) return type;
  throw Error(ErrorCode::bad_option, "PRODUCTS is " + name + "; it must be float32 or bfloat16");
}

void serve(const std::filesystem::path& folder, int threads, Type products) {
  const Encoder encoder(folder, {.products = products});
  LayerOptions options;
  options.threads = threads;
  std::string path;
  std::int64_t sequences = 0, length = 0;
  int repeats = 0;
  while (std::cin >> path >> sequences >> length >> repeats) {
    const Array ids = read_npy(path);
    std::vector<std::int64_t> cu_seqlens;
    for (std::int64_t s = 0; s <= sequences; ++s) cu_seqlens.push_back(s * length);
    Matrix<float> output(sequences * length, encoder.extents().model_dim);
    const Seconds seconds = seconds_of(encoder, {ids.values<std::int64_t>(), cu_seqlens, {}}, output, repeats, options);
    const std::int64_t shape[3] = {sequences, length, encoder.extents().model_dim};
    write_npy(path + ".out.npy", output.values(), shape);
    std::cout << seconds.wall << ' ' << seconds.processor << std::endl;
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc != 3 && argc != 4)
      throw Error(ErrorCode::bad_option, "usage: multihead_encoder_bench FOLDER THREADS [PRODUCTS]");
    serve(argv[1], std::stoi(argv[2]), products_of(argc == 4 ? argv[3] : "float32"));
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}

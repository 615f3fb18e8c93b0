// SPDX-License-Identifier: Apache-2.0
// A training that answers compare.py: for each line "STEPS" on standard input that many steps of the task
// four-relations on the batches of FOLDER, and on standard output the seconds and the loss of the last step.
#include <chrono>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <iostream>
#include <span>
#include <string>
#include <vector>

#include "multihead/gradients.hpp"
#include "multihead/io.hpp"
#include "multihead/tasks.hpp"

namespace {

using namespace multihead;

class Training {
 public:
  Training(const std::filesystem::path& folder, int threads)
      : config_(make_task("four-relations")->config(4)),
        model_(config_, 1),
        optimizer_((load_checkpoint(folder / "start.safetensors", model_.parameters(), nullptr), model_.parameters()),
                   {.rate = 1e-3, .decay = 0}),
        ids_(read_npy(folder / "ids.npy")),
        targets_(read_npy(folder / "targets.npy")) {
    options_.threads = threads;
    positions_ = ids_.shape[2];
    logits_ = Matrix<float>(positions_, config_.classes);
    for (std::int64_t at = 0; at <= positions_; at += config_.max_tokens) cu_seqlens_.push_back(at);
  }

  double step() {
    const std::int64_t batch = steps_++ % ids_.shape[0], relations = targets_.shape[1];
    const std::int64_t payloads = config_.classes / relations;
    const std::span<const std::int64_t> ids = ids_.values<std::int64_t>(), targets = targets_.values<std::int64_t>();
    model_.parameters().zero_gradients();
    model_.forward({{ids.data() + batch * 2 * positions_, {2, positions_}}, cu_seqlens_}, {}, logits_, options_);
    double loss = 0;
    for (std::int64_t r = 0; r < relations; ++r) {
      const MatrixView<float> part(logits_.data() + r * payloads, {positions_, payloads}, {config_.classes, 1});
      const auto first = static_cast<std::size_t>((batch * relations + r) * positions_);
      loss += cross_entropy<float>(part, targets.subspan(first, static_cast<std::size_t>(positions_)), 0, part,
                                   1 / static_cast<double>(positions_ * relations))
                  .loss;
    }
    model_.backward(std::as_const(logits_));
    clip_gradients(model_.parameters(), 1);
    optimizer_.step(1);
    return loss / static_cast<double>(relations);
  }

 private:
  TransformerConfig config_;
  Transformer<float> model_;
  AdamW<float> optimizer_;
  Array ids_, targets_;  // (batches, 2, positions), (batches, relations, positions)
  TransformerOptions options_;
  Matrix<float> logits_;
  std::vector<std::int64_t> cu_seqlens_;
  std::int64_t positions_ = 0, steps_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc != 3) throw Error(ErrorCode::bad_option, "usage: multihead_training_bench FOLDER THREADS");
    Training training(argv[1], std::stoi(argv[2]));
    for (int steps = 0; std::cin >> steps;) {
      const auto start = std::chrono::steady_clock::now();
      double loss = 0;
      for (int i = 0; i < steps; ++i) loss = training.step();
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      std::cout << seconds << ' ' << loss << std::endl;
    }
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}

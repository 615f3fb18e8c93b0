// SPDX-License-Identifier: Apache-2.0
// A training that answers compare.py: for each line "STEPS" on standard input that many steps of the model of task
// translation on the batches of FOLDER, and on standard output the seconds and the loss of the last step.
// Without FOLDER it prints source vocabulary, target vocabulary and positions of the model.
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

// Sequences of all batches one after another: lengths (batches, sequences), tokens of all.
struct Side {
  explicit Side(const std::filesystem::path& folder, const std::string& name)
      : lengths(read_npy(folder / (name + "_lengths.npy"))), tokens(read_npy(folder / (name + ".npy"))) {
    std::int64_t at = 0;
    for (std::int64_t batch = 0; batch < lengths.shape[0]; ++batch) {
      first.push_back(at);
      starts.push_back({0});
      for (std::int64_t i = 0; i < lengths.shape[1]; ++i)
        starts.back().push_back(starts.back().back() +
                                lengths.values<std::int64_t>()[static_cast<std::size_t>(batch * lengths.shape[1] + i)]);
      at += starts.back().back();
    }
  }
  std::int64_t count(std::size_t batch) const { return starts[batch].back(); }
  std::span<const std::int64_t> ids(std::size_t batch) const {
    return tokens.values<std::int64_t>().subspan(static_cast<std::size_t>(first[batch]),
                                                 static_cast<std::size_t>(count(batch)));
  }
  TokenBatch batch(std::size_t number) const { return {{ids(number).data(), {1, count(number)}}, starts[number]}; }

  Array lengths, tokens;
  std::vector<std::int64_t> first;
  std::vector<std::vector<std::int64_t>> starts;
};

class Training {
 public:
  Training(const std::filesystem::path& folder, int threads)
      : config_(make_task("translation")->config(4)),
        model_(config_, 1),
        optimizer_((load_checkpoint(folder / "start.safetensors", model_.parameters(), nullptr), model_.parameters()),
                   {.rate = 1e-3, .decay = 0}),
        source_(folder, "source"),
        target_(folder, "target"),
        wanted_(folder, "wanted") {
    options_.threads = threads;
  }

  double step() {
    const std::size_t batch = steps_++ % source_.starts.size();
    const std::int64_t tokens = target_.count(batch);
    Matrix<float> logits(tokens, config_.classes);
    model_.parameters().zero_gradients();
    model_.forward(source_.batch(batch), target_.batch(batch), logits, options_);
    const double loss =
        cross_entropy<float>(logits, wanted_.ids(batch), 0, logits, 1 / static_cast<double>(tokens)).loss;
    model_.backward(std::as_const(logits));
    clip_gradients(model_.parameters(), 1);
    optimizer_.step(1);
    return loss;
  }

 private:
  TransformerConfig config_;
  Transformer<float> model_;
  AdamW<float> optimizer_;
  Side source_, target_, wanted_;
  TransformerOptions options_;
  std::size_t steps_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc == 1) {
      const TransformerConfig config = make_task("translation")->config(4);
      std::cout << config.source_vocab[0] << ' ' << config.target_vocab[0] << ' ' << config.max_tokens << '\n';
      return 0;
    }
    if (argc != 3) throw Error(ErrorCode::bad_option, "usage: multihead_translation_bench FOLDER THREADS");
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

// SPDX-License-Identifier: Apache-2.0
// A user of the library multihead_train: two steps of a small encoder on one sentence of four tokens.
#include <cstdio>
#include <multihead/gradients.hpp>
#include <multihead/training.hpp>
#include <vector>

int main() {
  using namespace multihead;
  TransformerConfig config;
  config.source_vocab = {5};
  config.classes = 5;
  config.model_dim = 16, config.heads = 2, config.feed_forward = 32;
  config.decoder_layers = 0;
  Transformer<float> model(config, 1);
  const std::vector<std::int64_t> ids{3, 1, 4, 2}, before{4, 3, 1, 4}, cuts{0, 4};
  const TokenBatch sentence{{ids.data(), {1, 4}}, cuts};
  Matrix<float> logits(4, 5);

  AdamW<float> optimizer(model.parameters(), {});
  TrainOptions options;
  options.steps = 2;
  options.schedule.kind = Schedule::Kind::constant;
  options.report_every = 1;
  const std::vector<Metrics> metrics = train(model.parameters(), optimizer, options, [&](std::int64_t, std::int64_t) {
    model.forward(sentence, {}, logits);
    const CrossEntropy of = cross_entropy<float>(std::as_const(logits), before, 0, MatrixView<float>(logits), 0.25);
    model.backward(std::as_const(logits));
    return Metrics{0, of.loss, static_cast<double>(of.correct) / 4, 0, 0, of.rows};
  });
  const bool falls = metrics.back().loss < metrics.front().loss;
  std::printf("%d steps, the loss %s\n", static_cast<int>(metrics.size()), falls ? "falls" : "does not fall");
}

// SPDX-License-Identifier: Apache-2.0
// Tasks that small Transformers learn here, to show what heads are for: data, thresholds, what is found. Library
// multihead_train.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "multihead/tensor.hpp"
#include "multihead/training.hpp"
#include "multihead/transformer.hpp"

namespace multihead {

// What a run must reach, stated before it: metric at least (or at most) value.
struct Threshold {
  std::string metric;
  bool at_least = true;
  double value = 0;
};

// By how much each skill's accuracy on held-out data falls when one head is taken away (its gate is 0).
struct Ablation {
  std::vector<std::string> skills;  // "previous", "mirror" ..
  std::vector<std::string> heads;   // "encoder 0.2": stack, layer, head
  std::vector<double> whole;        // (skills): accuracy of the whole model
  Matrix<double> drop;              // (heads, skills)
  std::vector<std::string> labels;  // (heads): what each is for, by rule: the task says which in docs/learning.md
};

// One input through a model: for pages and pictures.
struct LearnedExample {
  struct Layer {
    std::string name;  // "encoder 0", "cross 0"
    std::vector<std::string> q_tokens, kv_tokens;
    std::vector<float> weights;  // (heads, q_tokens, kv_tokens)
  };
  std::string input, output, wanted;  // wanted: empty where nobody knows
  std::vector<Layer> layers;
};

// Everything is a function of its arguments: a seed gives the same data on every machine. Held-out data are never
// trained on, whatever the seed of the training. Stateless: may be used from many threads, a model by one at a time.
class Task {
 public:
  virtual ~Task() = default;
  virtual std::string_view name() const = 0;     // "four-relations"
  virtual std::string_view summary() const = 0;  // one line
  virtual std::int64_t heads() const = 0;        // unless another number is asked for
  // Of equal parameters for every number of heads. Throws bad_option.
  virtual TransformerConfig config(std::int64_t heads) const = 0;
  virtual TrainOptions options() const = 0;  // steps, optimiser, schedule
  // Forward, loss and backward of one batch: gradients are those of the mean over its targets.
  virtual Metrics train_batch(Transformer<float>& model, std::int64_t step, std::uint64_t seed,
                              const TransformerOptions& options) const = 0;
  // On held-out data, decoding freely where the task decodes. whole: all that is measured at the end; otherwise the few
  // numbers worth a look while training, on less data.
  virtual std::vector<std::pair<std::string, double>> evaluate(Transformer<float>& model, bool whole,
                                                               const TransformerOptions& options) const = 0;
  virtual std::vector<Threshold> thresholds(std::int64_t heads) const = 0;
  virtual Ablation ablate(Transformer<float>& model, const TransformerOptions& options) const = 0;
  // text empty: an example of the task's own. Throws bad_option for a word that the task does not know.
  virtual LearnedExample example(Transformer<float>& model, const std::string& text,
                                 const TransformerOptions& machine = {}) const = 0;
  // The numbers of heads and seeds of the published study.
  virtual std::vector<std::int64_t> study_heads() const = 0;
  virtual std::int64_t study_seeds() const = 0;
  // Of a language model, whose learned folder is one of GPT-2: its tokenizer.json, where token 0 stands before and
  // behind a text. Empty: it is none.
  virtual std::string_view tokenizer() const { return {}; }
};

std::span<const std::string_view> task_names() noexcept;
// Throws bad_option, naming the tasks that there are.
std::unique_ptr<Task> make_task(std::string_view name);

// A model in training: initial weights and data of that seed, then as TrainOptions has it, whose metadata get task,
// heads and seed. Throws as train() does; bad_option, changing nothing, where a checkpoint to resume is of another
// task, seed or number of heads.
struct Run {
  std::vector<Metrics> metrics;                         // as train() reports them
  std::vector<std::pair<std::string, double>> results;  // evaluate(whole)
  std::vector<std::pair<Threshold, bool>> judged;       // whether each threshold was met
};
Run run_task(const Task& task, Transformer<float>& model, std::uint64_t seed, const TrainOptions& options,
             const TransformerOptions& machine = {});

// A learned model in a folder, which is made where there is none: model.safetensors, whose metadata name task, heads
// and seed; of a language model with GPT-2's names, beside config.json, generation_config.json and tokenizer.json.
// Throws as load_checkpoint does; bad_option for a task that there is not.
void save_learned(const std::filesystem::path& folder, const Task& task, const Transformer<float>& model,
                  std::uint64_t seed);
struct Learned {
  std::unique_ptr<Task> task;
  Transformer<float> model;
  std::int64_t heads;
  std::uint64_t seed;
};
Learned load_learned(const std::filesystem::path& folder);

}  // namespace multihead

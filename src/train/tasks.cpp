// SPDX-License-Identifier: Apache-2.0
// Tasks by name, a run of one from initial weights to judged results, and learned models in folders.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "multihead/tasks.hpp"
#include "train/checkpoint.hpp"
#include "train/gpt2_folder.hpp"
#include "train/tasks/table.hpp"
#include "train/tasks/words.hpp"

namespace multihead {

namespace {

constexpr std::int64_t kEndOfText = 0;  // of every task's tokenizer

const std::string* value_of(const Metadata& metadata, std::string_view key) {
  const auto found =
      std::find_if(metadata.begin(), metadata.end(), [&](const auto& pair) { return pair.first == key; });
  return found == metadata.end() ? nullptr : &found->second;
}

Metadata identity(const Task& task, std::int64_t heads, std::uint64_t seed) {
  return {{"task", std::string(task.name())}, {"heads", std::to_string(heads)}, {"seed", std::to_string(seed)}};
}

// Dropout's seed of one batch: alike on every machine, another one each time.
std::uint64_t dropout_seed(std::uint64_t seed, std::int64_t batch) noexcept {
  constexpr std::uint32_t kStream = 0x6472'6f70;
  const auto n = static_cast<std::uint64_t>(batch);
  const auto words = philox4x32({static_cast<std::uint32_t>(n), static_cast<std::uint32_t>(n >> 32), kStream, 0}, seed);
  return std::uint64_t{words[1]} << 32 | words[0];
}

// found: what the checkpoint has in the place of value, or null.
[[noreturn]] void refuse_other(const std::filesystem::path& checkpoint, const std::string& key,
                               const std::string& value, const std::string* found) {
  throw Error(ErrorCode::bad_option, "run_task: " + checkpoint.string() + " has " +
                                         (found ? key + " " + *found : "no " + key) + "; this training has " + key +
                                         " " + value);
}

// Reads the checkpoint's metadata before anything of it goes into the model.
void resume(const std::filesystem::path& checkpoint, const Metadata& wanted, Transformer<float>& model,
            AdamW<float>& optimizer) {
  const Metadata metadata = Safetensors(checkpoint).metadata();
  for (const auto& [key, value] : wanted) {
    const std::string* const found = value_of(metadata, key);
    if (!found || *found != value) refuse_other(checkpoint, key, value, found);
  }
  load_checkpoint(checkpoint, model.parameters(), &optimizer);
}

std::vector<std::pair<Threshold, bool>> judge(const Task& task, std::int64_t heads,
                                              const std::vector<std::pair<std::string, double>>& results) {
  std::vector<std::pair<Threshold, bool>> judged;
  for (Threshold& threshold : task.thresholds(heads)) {
    const auto found = std::find_if(results.begin(), results.end(),
                                    [&](const auto& result) { return result.first == threshold.metric; });
    const double value = found == results.end() ? std::nan("") : found->second;
    const bool met = threshold.at_least ? value >= threshold.value : value <= threshold.value;
    judged.emplace_back(std::move(threshold), met);
  }
  return judged;
}

template <class Integer>
Integer number_of(const std::filesystem::path& path, const Metadata& metadata, const char* key) {
  const std::string* const text = value_of(metadata, key);
  Integer number{};
  const char* const end = text ? text->data() + text->size() : nullptr;
  const std::from_chars_result read = text ? std::from_chars(text->data(), end, number) : std::from_chars_result{};
  if (!text || read.ec != std::errc() || read.ptr != end)
    throw Error(ErrorCode::file_malformed,
                "load_learned: " + path.string() + ": its metadata have no whole number '" + key + "'");
  return number;
}

}  // namespace

std::span<const std::string_view> task_names() noexcept {
  static const std::vector<std::string_view> names = [] {
    std::vector<std::string_view> all;
    for (const TaskEntry& entry : task_table()) all.push_back(entry.name);
    return all;
  }();
  return names;
}

std::unique_ptr<Task> make_task(std::string_view name) {
  std::string names;
  for (const TaskEntry& entry : task_table()) {
    if (entry.name == name) return entry.make();
    names += (names.empty() ? "" : ", ") + std::string(entry.name);
  }
  throw Error(ErrorCode::bad_option, "make_task: '" + shown(name) + "' is no task; there are " + names);
}

Run run_task(const Task& task, Transformer<float>& model, std::uint64_t seed, const TrainOptions& options,
             const TransformerOptions& machine) {
  const std::int64_t heads = model.config().heads;
  AdamW<float> optimizer(model.parameters(), options.adamw);
  Metadata named = identity(task, heads, seed);
  named.emplace_back("steps", std::to_string(options.steps));
  if (options.resume && std::filesystem::exists(options.checkpoint))
    resume(options.checkpoint, named, model, optimizer);
  TrainOptions training = options;
  training.metadata.insert(training.metadata.end(), named.begin(), named.end());

  const Batch batch = [&](std::int64_t step, std::int64_t number) {
    TransformerOptions learning = machine;
    const std::int64_t n = step * options.accumulate + number;
    learning.training = true;
    learning.seed = dropout_seed(seed, n);
    return task.train_batch(model, n, seed, learning);
  };
  const Evaluate evaluate = [&](std::int64_t) { return task.evaluate(model, false, machine); };
  Run run;
  run.metrics = train(model.parameters(), optimizer, training, batch, evaluate);
  run.results = task.evaluate(model, true, machine);
  run.judged = judge(task, heads, run.results);
  return run;
}

void save_learned(const std::filesystem::path& folder, const Task& task, const Transformer<float>& model,
                  std::uint64_t seed) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error)
    throw Error(ErrorCode::file_missing, "save_learned: " + folder.string() + ": cannot be made: " + error.message());
  const Metadata metadata = identity(task, model.config().heads, seed);
  if (task.tokenizer().empty())
    save_parameters(folder / "model.safetensors", model.parameters(), as_it_is, metadata);
  else
    save_gpt2(folder, model, task.tokenizer(), kEndOfText, metadata);
}

Learned load_learned(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "model.safetensors";
  const Metadata metadata = Safetensors(path).metadata();
  const std::string* const name = value_of(metadata, "task");
  if (!name) throw Error(ErrorCode::file_malformed, "load_learned: " + path.string() + ": its metadata name no task");
  const auto heads = number_of<std::int64_t>(path, metadata, "heads");
  const auto seed = number_of<std::uint64_t>(path, metadata, "seed");
  std::unique_ptr<Task> task = make_task(*name);
  Transformer<float> model(task->config(heads), seed);
  if (task->tokenizer().empty())
    load_checkpoint(path, model.parameters(), nullptr);
  else
    load_gpt2(path, model);
  return {std::move(task), std::move(model), heads, seed};
}

}  // namespace multihead

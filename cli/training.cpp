// SPDX-License-Identifier: Apache-2.0
// One training from the command line: progress, its folder, going on where it was cut off.
#include "training.hpp"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <limits>

#include "json_text.hpp"
#include "model.hpp"
#include "print.hpp"
#include "texts.hpp"

namespace multihead::cli {

namespace {

constexpr std::int64_t kCheckpoints = 20;  // of a training

std::string clock_text(double seconds) {
  const auto whole = static_cast<std::int64_t>(std::min(seconds, 359999.0) + 0.5);
  const auto two = [](std::int64_t number) { return (number < 10 ? "0" : "") + std::to_string(number); };
  const std::string minutes = std::to_string(whole / 60 % 60);
  return whole < 3600 ? minutes + ":" + two(whole % 60)
                      : std::to_string(whole / 3600) + ":" + two(whole / 60 % 60) + ":" + two(whole % 60);
}

std::string count_text(double number) {
  return number < 10000 ? fixed(number, 0) : number < 1e7 ? fixed(number / 1e3, 0) + "k" : fixed(number / 1e6, 0) + "M";
}

// The lines of a training.
class Progress {
 public:
  explicit Progress(const TrainingPlan& plan)
      : title_(plan.title),
        steps_(plan.options.steps),
        out_(plan.quiet ? std::cerr : std::cout),
        descriptor_(plan.quiet ? STDERR_FILENO : STDOUT_FILENO) {}
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress() {
    if (open_) out_ << '\n';
  }

  void show(const Metrics& metrics, double rate, double left) {
    std::string line = title_ + (title_.empty() ? "step " : ": step ") + std::to_string(metrics.step) + " of " +
                       std::to_string(steps_) + "  loss " + fixed(metrics.loss, 4) + "  accuracy " +
                       fixed(metrics.accuracy, 3);
    for (const auto& [name, value] : metrics.more) line += "  " + name + " " + fixed(value, 3);
    line += "  " + fixed(rate, 1) + " steps/s  " + count_text(rate * static_cast<double>(metrics.tokens)) +
            " tokens/s  " + clock_text(left) + " left";
    line = printable(line);
    if (isatty(descriptor_) == 0) {
      out_ << line << std::endl;
      return;
    }
    winsize size{};
    const bool known = ioctl(descriptor_, TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
    out_ << '\r' << fitted(line, known ? size.ws_col - 1u : 79u) << std::flush;
    open_ = true;
  }

 private:
  std::string title_;
  std::int64_t steps_;
  std::ostream& out_;
  int descriptor_;
  bool open_ = false;  // a line stands without its end
};

std::int64_t steps_of(const std::filesystem::path& checkpoint) {
  const Safetensors file(checkpoint);
  for (const auto& [key, value] : file.metadata())
    if (key == "adamw_steps") return whole_number(value).value_or(0);
  return 0;
}

// What a training that was killed while it wrote has left in its folder, .multihead-N.tmp.
void remove_temporary(const std::filesystem::path& folder) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    const bool temporary = name.starts_with(".multihead-") && name.ends_with(".tmp");
    if (temporary && entry.symlink_status(ignored).type() == std::filesystem::file_type::regular)
      std::filesystem::remove(entry.path(), ignored);
  }
}

// The folder as this training finds it: the metrics of the steps that its checkpoint has. The log holds just those
// then.
std::vector<Metrics> prepare_folder(const TrainingPlan& plan, const std::filesystem::path& checkpoint,
                                    const std::filesystem::path& log) {
  make_folder("--out", plan.folder);
  if (std::filesystem::exists(log)) remove_temporary(plan.folder);
  const bool there = std::filesystem::exists(checkpoint);
  if (there && !plan.resume)
    throw Error(ErrorCode::bad_option, "--out: " + plan.folder.string() +
                                           " holds a training already; --resume goes on with it, another folder "
                                           "starts anew");
  std::vector<Metrics> before;
  if (there && std::filesystem::exists(log)) before = read_metrics(log, steps_of(checkpoint));
  std::string text;
  for (const Metrics& metrics : before) text += json_line(metrics) + '\n';
  write_text("--out", log.string(), text);
  return before;
}

}  // namespace

TransformerOptions machine_of(const Common& common) {
  TransformerOptions machine;
  machine.threads = common.threads;
  machine.target = common.target;
  return machine;
}

void make_folder(const std::string& option, const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error || !std::filesystem::is_directory(folder))
    throw Error(ErrorCode::file_missing, option + ": " + folder.string() + " cannot be made" +
                                             (error ? ": " + error.message() : ": it is no folder"));
}

TrainOptions options_of(const Task& task, std::optional<std::int64_t> steps) {
  TrainOptions options = task.options();
  if (steps) options.steps = options.schedule.total = *steps;
  return options;
}

Trained train_plan(const TrainingPlan& plan, const Common& common) {
  Trained trained{Transformer<float>(plan.task.config(plan.heads), plan.seed),
                  {}};  // or refuses; nothing is written yet
  TrainOptions options = plan.options;
  std::vector<Metrics> before;
  std::ofstream log;
  if (!plan.folder.empty()) {
    options.checkpoint = plan.folder / "checkpoint.safetensors";
    options.checkpoint_every = std::max<std::int64_t>(options.steps / kCheckpoints, 1);
    options.resume = plan.resume;
    const std::filesystem::path path = plan.folder / "metrics.jsonl";
    before = prepare_folder(plan, options.checkpoint, path);
    log.open(path, std::ios::app | std::ios::binary);
    if (!log) throw Error(ErrorCode::file_missing, "--out: " + path.string() + " cannot be written");
    options.log = &log;
  }
  {
    Progress progress(plan);
    options.progress = [&](const Metrics& metrics, double rate, double left) { progress.show(metrics, rate, left); };
    trained.run = run_task(plan.task, trained.model, plan.seed, options, machine_of(common));
  }
  trained.run.metrics.insert(trained.run.metrics.begin(), before.begin(), before.end());
  if (!plan.folder.empty()) save_learned(plan.folder, plan.task, trained.model, plan.seed);
  return trained;
}

std::string bound_text(const Threshold& threshold) {
  std::string number = fixed(threshold.value, 4);
  while (number.back() == '0') number.pop_back();
  if (number.back() == '.') number.pop_back();
  return (threshold.at_least ? "at least " : "at most ") + number;
}

std::vector<Curve> curves_of(const std::vector<Metrics>& metrics) {
  std::vector<Curve> curves{{"loss", {}}, {"accuracy", {}}};
  for (const Metrics& one : metrics) {
    const auto step = static_cast<double>(one.step);
    curves[0].points.emplace_back(step, one.loss);
    curves[1].points.emplace_back(step, one.accuracy);
    for (const auto& more : one.more) {
      auto found =
          std::find_if(curves.begin(), curves.end(), [&](const Curve& curve) { return curve.name == more.first; });
      if (found == curves.end()) found = curves.insert(curves.end(), Curve{more.first, {}});
      found->points.emplace_back(step, more.second);
    }
  }
  return curves;
}

std::string results_json(const TrainingPlan& plan, const Trained& trained, const Ablation* ablation) {
  std::string out = "{\"task\": " + json_text(plan.task.name()) + ", \"heads\": " + std::to_string(plan.heads) +
                    ", \"seed\": " + std::to_string(plan.seed) + ", \"steps\": " + std::to_string(plan.options.steps) +
                    ", \"parameters\": " + std::to_string(trained.model.parameters().elements()) + ",\n\"results\": {";
  const auto comma = [&] { out += out.back() == '{' || out.back() == '[' ? "" : ", "; };
  for (const auto& [name, value] : trained.run.results) {
    comma();
    out += json_text(name) + ": " + json_number(value);
  }
  out += "},\n\"thresholds\": [";
  for (const auto& [threshold, met] : trained.run.judged) {
    comma();
    out += "{\"metric\": " + json_text(threshold.metric) +
           ", \"at_least\": " + (threshold.at_least ? "true" : "false") +
           ", \"value\": " + json_number(threshold.value) + ", \"met\": " + (met ? "true" : "false") + "}";
  }
  out += "]";
  if (ablation) {
    std::vector<std::string> skills, whole, heads;
    for (const std::string& skill : ablation->skills) skills.push_back(json_text(skill));
    for (const double value : ablation->whole) whole.push_back(json_number(value));
    for (std::size_t h = 0; h < ablation->heads.size(); ++h) {
      std::vector<std::string> drop;
      for (std::int64_t s = 0; s < ablation->drop.columns(); ++s)
        drop.push_back(json_number(ablation->drop(static_cast<std::int64_t>(h), s)));
      heads.push_back("\n {\"head\": " + json_text(ablation->heads[h]) +
                      (h < ablation->labels.size() ? ", \"label\": " + json_text(ablation->labels[h]) : "") +
                      ", \"drop\": " + json_list(drop) + "}");
    }
    out += ",\n\"ablation\": {\"skills\": " + json_list(skills) + ", \"whole\": " + json_list(whole) +
           ", \"heads\": " + json_list(heads) + "}";
  }
  return out + "}\n";
}

}  // namespace multihead::cli

// SPDX-License-Identifier: Apache-2.0
// multihead train: a small Transformer learns a task here, is judged by what was stated before, and shows its heads.
#include <algorithm>
#include <iostream>

#include "arguments.hpp"
#include "json_text.hpp"
#include "learned_heads.hpp"
#include "print.hpp"
#include "study.hpp"
#include "terminal.hpp"
#include "training.hpp"

namespace multihead::cli {

namespace {

void print_start(const TrainingPlan& plan, const TransformerConfig& config, const Common& common) {
  std::cout << plan.task.name() << ": " << plan.task.summary() << '\n'
            << plan.heads << (plan.heads == 1 ? " head" : " heads") << " a layer, model_dim " << config.model_dim
            << ", seed " << plan.seed << ", " << plan.options.steps << " steps, " << common.threads
            << (common.threads == 1 ? " thread\n" : " threads\n");
  const std::vector<Threshold> thresholds = plan.task.thresholds(plan.heads);
  for (std::size_t i = 0; i < thresholds.size(); ++i)
    std::cout << (i == 0 ? "To be reached: " : "               ") << thresholds[i].metric << ' '
              << bound_text(thresholds[i]) << '\n';
  std::cout << std::flush;
}

// Loss and accuracy; what a task adds is in plot.svg.
void print_plot(const std::vector<Metrics>& metrics) {
  std::vector<Curve> curves = curves_of(metrics);
  curves.resize(2);
  std::cout << '\n';
  for (const std::string& line : plot_text(curves, std::min<std::size_t>(terminal_columns(), 100)))
    std::cout << line << '\n';
}

void print_results(const Run& run) {
  std::vector<std::vector<std::string>> rows{{"result", "value", "to be reached", ""}};
  for (const auto& [name, value] : run.results) {
    rows.push_back({name, fixed(value, 4), "", ""});
    for (const auto& [threshold, met] : run.judged)
      if (threshold.metric == name) rows.back()[2] = bound_text(threshold), rows.back()[3] = met ? "met" : "not met";
  }
  for (const auto& judged : run.judged)
    if (std::none_of(run.results.begin(), run.results.end(),
                     [&](const auto& result) { return result.first == judged.first.metric; }))
      rows.push_back({judged.first.metric, "-", bound_text(judged.first), "not met"});
  std::cout << '\n';
  print_table(std::cout, rows);
}

void print_ablation(const Ablation& ablation) {
  if (ablation.heads.empty()) return;
  std::vector<std::vector<std::string>> rows{{"head"}, {"whole model"}};
  for (std::size_t s = 0; s < ablation.skills.size(); ++s) {
    rows[0].push_back(ablation.skills[s]);
    rows[1].push_back(fixed(ablation.whole[s], 4));
  }
  rows[0].push_back("label"), rows[1].push_back("");
  for (std::size_t h = 0; h < ablation.heads.size(); ++h) {
    rows.push_back({ablation.heads[h]});
    for (std::int64_t s = 0; s < ablation.drop.columns(); ++s)
      rows.back().push_back(fixed(-ablation.drop(static_cast<std::int64_t>(h), s), 4));
    rows.back().push_back(h < ablation.labels.size() ? ablation.labels[h] : "");
  }
  std::cout << "\nAccuracy on held-out data, and by how much it changes without one head:\n";
  print_table(std::cout, rows);
}

int train_once(const TrainArguments& arguments, const Task& task, const Common& common) {
  const TrainingPlan plan{task,
                          arguments.heads.value_or(task.heads()),
                          arguments.seed,
                          options_of(task, arguments.steps),
                          arguments.out,
                          arguments.resume,
                          "",
                          arguments.json};
  const TransformerConfig config = task.config(plan.heads);
  if (!arguments.json) print_start(plan, config, common);
  Trained trained = train_plan(plan, common);
  const Ablation ablation = task.ablate(trained.model, machine_of(common));
  const std::string json = results_json(plan, trained, &ablation);
  if (!plan.folder.empty()) {
    const auto file = [&](const char* name) { return (plan.folder / name).string(); };
    const std::string title =
        std::string(task.name()) + ", " + std::to_string(plan.heads) + " heads, seed " + std::to_string(plan.seed);
    write_text("--out", file("plot.svg"), plot_svg(title, "step", "", curves_of(trained.run.metrics)));
    write_learned_pages("--out", file("page.html"), title, task.example(trained.model, "", machine_of(common)));
    write_text("--out", file("results.json"), json);
  }
  if (arguments.json) {
    std::cout << json;
    return 0;
  }
  print_plot(trained.run.metrics);
  print_results(trained.run);
  print_ablation(ablation);
  if (!plan.folder.empty()) std::cout << "\nmodel, metrics, plot, results and page: " << plan.folder.string() << '\n';
  return 0;
}

}  // namespace

int train(const TrainArguments& arguments, const Common& common) {
  const std::unique_ptr<Task> task = make_task(arguments.task);
  return arguments.study ? study(arguments, *task, common) : train_once(arguments, *task, common);
}

}  // namespace multihead::cli

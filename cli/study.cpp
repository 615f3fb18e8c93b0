// SPDX-License-Identifier: Apache-2.0
// multihead train --study: a task with several numbers of heads, each from several seeds. A cell of the grid is a
// folder of its own, finished when its finished.jsonl is there: a study that is cut off goes on where it was.
#include "study.hpp"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <iostream>
#include <limits>
#include <sstream>

#include "json_text.hpp"
#include "print.hpp"
#include "training.hpp"

namespace multihead::cli {

namespace {

using Results = std::vector<std::pair<std::string, double>>;

struct Cell {
  std::int64_t heads;
  std::uint64_t seed;
  std::vector<Metrics> metrics;
  Results results;
};

// One result of all seeds of a number of heads.
struct Spread {
  std::int64_t heads;
  std::string metric;
  std::int64_t seeds = 0;
  double mean = 0, deviation = 0, least = 0, most = 0;  // deviation: of a sample, NaN for one seed
};

double value_of(const Results& results, const std::string& metric) {
  const auto found = std::find_if(results.begin(), results.end(), [&](const auto& one) { return one.first == metric; });
  return found == results.end() ? std::nan("") : found->second;
}

Spread spread_of(const std::vector<Cell>& cells, std::int64_t heads, const std::string& metric) {
  Spread spread{heads, metric};
  std::vector<double> values;
  for (const Cell& cell : cells)
    if (cell.heads == heads) values.push_back(value_of(cell.results, metric));
  spread.seeds = std::ssize(values);
  for (const double value : values) spread.mean += value / static_cast<double>(values.size());
  double squares = 0;
  for (const double value : values) squares += (value - spread.mean) * (value - spread.mean);
  spread.deviation = values.size() > 1 ? std::sqrt(squares / static_cast<double>(values.size() - 1)) : std::nan("");
  spread.least = *std::min_element(values.begin(), values.end());
  spread.most = *std::max_element(values.begin(), values.end());
  return spread;
}

std::vector<Spread> spreads_of(const Task& task, const std::vector<Cell>& cells) {
  std::vector<Spread> spreads;
  for (const std::int64_t heads : task.study_heads())
    for (const auto& [metric, value] : cells.front().results) spreads.push_back(spread_of(cells, heads, metric));
  return spreads;
}

// A cell that was finished before, or is now.
Cell cell_of(const TrainingPlan& plan, const Common& common) {
  const std::filesystem::path finished = plan.folder / "finished.jsonl";
  if (std::filesystem::exists(finished)) {
    const std::vector<Metrics> lines = read_metrics(finished, std::numeric_limits<std::int64_t>::max());
    if (lines.size() != 1 || lines[0].step != plan.options.steps)
      throw Error(ErrorCode::bad_option,
                  "--out: " + finished.string() + " is of " +
                      (lines.empty() ? "no training" : std::to_string(lines[0].step) + " steps") +
                      "; this study trains " + std::to_string(plan.options.steps) + " and needs a folder of its own");
    return {plan.heads, plan.seed, read_metrics(plan.folder / "metrics.jsonl", plan.options.steps), lines[0].more};
  }
  Trained trained = train_plan(plan, common);
  write_text("--out", (plan.folder / "results.json").string(), results_json(plan, trained, nullptr));
  Metrics mark;
  mark.step = plan.options.steps;
  mark.more = trained.run.results;
  write_text("--out", finished.string(), json_line(mark) + '\n');
  return {plan.heads, plan.seed, trained.run.metrics, trained.run.results};
}

std::string cell_name(const Task& task, std::int64_t heads, std::uint64_t seed) {
  return std::string(task.name()) + "-heads-" + std::to_string(heads) + "-seed-" + std::to_string(seed);
}

// Of that many seeds, how many met what is to be reached; empty where nothing is.
std::string met_text(const Task& task, const std::vector<Cell>& cells, const Spread& spread) {
  for (const Threshold& threshold : task.thresholds(spread.heads)) {
    if (threshold.metric != spread.metric) continue;
    const auto met = std::count_if(cells.begin(), cells.end(), [&](const Cell& cell) {
      const double value = value_of(cell.results, threshold.metric);
      return cell.heads == spread.heads && (threshold.at_least ? value >= threshold.value : value <= threshold.value);
    });
    return bound_text(threshold) + ": " + std::to_string(met) + " of " + std::to_string(spread.seeds);
  }
  return "";
}

std::string table_text(const Task& task, const std::vector<Cell>& cells, const std::vector<Spread>& spreads) {
  std::vector<std::vector<std::string>> rows{
      {"heads", "result", "seeds", "mean", "sd", "min", "max", "to be reached: seeds that did"}};
  for (const Spread& one : spreads)
    rows.push_back({std::to_string(one.heads), one.metric, std::to_string(one.seeds), fixed(one.mean, 4),
                    std::isnan(one.deviation) ? "-" : fixed(one.deviation, 4), fixed(one.least, 4), fixed(one.most, 4),
                    met_text(task, cells, one)});
  std::ostringstream text;
  print_table(text, rows);
  return std::move(text).str();
}

std::string csv_text(const std::vector<Spread>& spreads) {
  std::string text = "heads,result,seeds,mean,sd,min,max\n";
  const auto number = [](double value) { return std::isnan(value) ? std::string() : json_number(value); };
  for (const Spread& one : spreads)
    text += std::to_string(one.heads) + ',' + one.metric + ',' + std::to_string(one.seeds) + ',' + number(one.mean) +
            ',' + number(one.deviation) + ',' + number(one.least) + ',' + number(one.most) + '\n';
  return text;
}

std::string json_of(const Task& task, const std::vector<Cell>& cells, const std::vector<Spread>& spreads) {
  std::vector<std::string> runs, rows;
  for (const Cell& cell : cells) {
    std::string results;
    for (const auto& [name, value] : cell.results)
      results += (results.empty() ? "" : ", ") + json_text(name) + ": " + json_number(value);
    runs.push_back("\n {\"heads\": " + std::to_string(cell.heads) + ", \"seed\": " + std::to_string(cell.seed) +
                   ", \"results\": {" + results + "}}");
  }
  for (const Spread& one : spreads)
    rows.push_back("\n {\"heads\": " + std::to_string(one.heads) + ", \"result\": " + json_text(one.metric) +
                   ", \"seeds\": " + std::to_string(one.seeds) + ", \"mean\": " + json_number(one.mean) +
                   ", \"sd\": " + json_number(one.deviation) + ", \"min\": " + json_number(one.least) +
                   ", \"max\": " + json_number(one.most) + "}");
  return "{\"task\": " + json_text(task.name()) + ",\n\"runs\": " + json_list(runs) +
         ",\n\"spread\": " + json_list(rows) + "}\n";
}

// Means over the seeds of each number of heads, one picture a measure.
void write_curves(const Task& task, const std::vector<Cell>& cells, const std::filesystem::path& folder) {
  for (const Curve& measure : curves_of(cells.front().metrics)) {
    std::vector<Curve> lines;
    for (const std::int64_t heads : task.study_heads()) {
      Curve line{std::to_string(heads) + (heads == 1 ? " head" : " heads"), measure.points};
      for (auto& point : line.points) point.second = 0;
      double seeds = 0;
      for (const Cell& cell : cells) {
        if (cell.heads != heads) continue;
        ++seeds;
        for (const Curve& curve : curves_of(cell.metrics))
          for (std::size_t i = 0; curve.name == measure.name && i < std::min(line.points.size(), curve.points.size());
               ++i)
            line.points[i].second += curve.points[i].second;
      }
      for (auto& point : line.points) point.second /= seeds;
      lines.push_back(std::move(line));
    }
    std::string name = measure.name;
    std::replace_if(
        name.begin(), name.end(), [](char c) { return !std::isalnum(static_cast<unsigned char>(c)) && c != '_'; }, '-');
    write_text("--out", (folder / ("curves-" + name + ".svg")).string(),
               plot_svg(std::string(task.name()) + ": mean over seeds", "step", measure.name, lines));
  }
}

}  // namespace

int study(const TrainArguments& arguments, const Task& task, const Common& common) {
  const std::filesystem::path folder = arguments.out;
  const std::int64_t seeds = arguments.seeds.value_or(task.study_seeds());
  make_folder("--out", folder);
  std::vector<Cell> cells;
  for (std::int64_t i = 0; i < seeds; ++i)
    for (const std::int64_t heads : task.study_heads()) {
      const std::uint64_t seed = arguments.first_seed + static_cast<std::uint64_t>(i);
      const std::string name = cell_name(task, heads, seed);
      cells.push_back(cell_of(
          {task, heads, seed, options_of(task, arguments.steps), folder / name, true, name, arguments.json}, common));
    }
  const std::vector<Spread> spreads = spreads_of(task, cells);
  const std::string table = table_text(task, cells, spreads), json = json_of(task, cells, spreads);
  write_text("--out", (folder / "study.txt").string(), table);
  write_text("--out", (folder / "study.csv").string(), csv_text(spreads));
  write_text("--out", (folder / "study.json").string(), json);
  write_curves(task, cells, folder);
  std::cout << (arguments.json ? json : table);
  return 0;
}

}  // namespace multihead::cli

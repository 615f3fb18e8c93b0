// SPDX-License-Identifier: Apache-2.0
// multihead learned: what the heads of a model that was trained here look at in an input.
#include <filesystem>
#include <iostream>

#include "arguments.hpp"
#include "learned_heads.hpp"
#include "model.hpp"
#include "multihead/tasks.hpp"
#include "print.hpp"
#include "shipped.hpp"
#include "terminal.hpp"
#include "training.hpp"

namespace multihead::cli {

int learned(const LearnedArguments& arguments, const Common& common) {
  if (!arguments.task.empty()) make_task(arguments.task);  // a name that is none is told as such
  const std::filesystem::path folder = learned_folder(arguments.model, arguments.task);
  Learned model = load_learned(folder);
  const std::string name(model.task->name());
  if (!arguments.task.empty() && arguments.task != name)
    throw Error(ErrorCode::bad_option, "learned: " + folder.string() + " has learned " + name + ", not " +
                                           arguments.task + "; they must be the same");
  const LearnedExample example = model.task->example(model.model, arguments.input, machine_of(common));
  const std::string title = name + ", " + std::to_string(model.heads) + " heads";
  if (!arguments.html.empty()) {
    const auto written = write_learned_pages("--html", arguments.html, title, example);
    for (const std::string& file : written)
      if (file != "-") std::cout << "html  " << file << '\n';
    return 0;
  }
  std::cout << name << ": " << model.task->summary() << '\n'
            << model.heads << " heads a layer, trained from seed " << model.seed << ", "
            << model.model.parameters().elements() << " parameters\n\n";
  print_learned(std::cout, example, terminal_columns(), color_depth(arguments.color));
  return 0;
}

}  // namespace multihead::cli

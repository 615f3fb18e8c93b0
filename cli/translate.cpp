// SPDX-License-Identifier: Apache-2.0
// multihead translate: a sentence into French, or into its main clause, and what each head looks at on the way.
#include "multihead/translation.hpp"

#include <algorithm>
#include <iostream>

#include "arguments.hpp"
#include "learned_heads.hpp"
#include "shipped.hpp"
#include "terminal.hpp"
#include "training.hpp"

namespace multihead::cli {

int translate(const TranslateArguments& arguments, const Common& common) {
  const std::filesystem::path folder = learned_folder(arguments.model, "translation");
  Learned learned = load_learned(folder);
  if (learned.task->name() != "translation")
    throw Error(ErrorCode::bad_option, "translate: " + folder.string() + " has learned " +
                                           std::string(learned.task->name()) + "; it must have learned translation");
  TranslateOptions options;
  options.summarise = arguments.summarise;
  options.beam = arguments.beam;
  options.machine = machine_of(common);
  LearnedExample example = translate(learned.model, arguments.texts.front(), options);
  if (!arguments.html.empty()) {
    for (const std::string& file : write_learned_pages("--html", arguments.html, example.output, example))
      std::cout << "html  " << file << '\n';
    return 0;
  }
  if (!arguments.heads)
    std::erase_if(example.layers, [](const LearnedExample::Layer& layer) { return !layer.name.starts_with("cross"); });
  print_learned(std::cout, example, terminal_columns(), color_depth(arguments.color));
  return 0;
}

}  // namespace multihead::cli

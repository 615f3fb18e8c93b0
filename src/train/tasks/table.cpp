// SPDX-License-Identifier: Apache-2.0
// The tasks that there are, one line each.
#include "train/tasks/table.hpp"

#include <string>

#include "core/validate.hpp"

namespace multihead {

// Each is made by the file of its own that bears its name.
std::unique_ptr<Task> make_four_relations();
std::unique_ptr<Task> make_grammar();
std::unique_ptr<Task> make_translation();
std::unique_ptr<Task> make_noise();
std::unique_ptr<Task> make_language();

std::span<const TaskEntry> task_table() noexcept {
  static const std::vector<TaskEntry> table{
      {"four-relations", make_four_relations},
      {"grammar", make_grammar},
      {"translation", make_translation},
      {"noise", make_noise},
      {"language", make_language},
  };
  return table;
}

void check_heads(std::string_view task, const TransformerConfig& config) {
  if (config.heads >= 1 && config.model_dim % config.heads == 0) return;
  fail(ErrorCode::bad_option, std::string(task) + ": heads is " + std::to_string(config.heads) +
                                  "; it must divide the model's " + std::to_string(config.model_dim) + " columns");
}

}  // namespace multihead

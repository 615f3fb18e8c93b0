// SPDX-License-Identifier: Apache-2.0
// The tasks that there are, one line each.
#pragma once

#include <memory>

#include "multihead/tasks.hpp"

namespace multihead {

struct TaskEntry {
  std::string_view name;
  std::unique_ptr<Task> (*make)();
};

// In the order in which they are told.
std::span<const TaskEntry> task_table() noexcept;

// Throws bad_option, naming the task, where the heads do not share out the model's width.
void check_heads(std::string_view task, const TransformerConfig& config);

}  // namespace multihead

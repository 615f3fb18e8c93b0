// SPDX-License-Identifier: Apache-2.0
// multihead train --study: a task with several numbers of heads, each from several seeds.
#pragma once

#include "arguments.hpp"
#include "multihead/tasks.hpp"

namespace multihead::cli {

// Trains what --out does not hold yet, then prints and writes mean and spread of every result.
int study(const TrainArguments& arguments, const Task& task, const Common& common);

}  // namespace multihead::cli

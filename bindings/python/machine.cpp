// SPDX-License-Identifier: Apache-2.0
// The machine and the process: what can run, what has run, how many threads.
#include "faces.hpp"
#include "options.hpp"

namespace face {
namespace {

nb::dict info() {
  mh_info found;
  mh_info_init(&found, sizeof found);
  check(mh_get_info(&found));
  nb::list targets;
  for (int i = 0; i < found.available_count; ++i) targets.append(mh_target_name(found.available[i]));
  nb::dict result;
  result["version"] = found.version;
  result["processor"] = found.processor;
  result["compiler"] = found.compiler;
  result["targets"] = nb::tuple(targets);
  result["chosen"] = mh_target_name(found.chosen);
  result["threads"] = found.threads;
  result["models"] = found.models != 0;
  return result;
}

uint64_t tasks_run(nb::handle name) {
  mh_target target;
  uint64_t count = 0;
  check(mh_target_from_name(text(name, {"tasks_run", "target"}), &target));
  check(mh_tasks_run(target, &count));
  return count;
}

void set_threads(nb::handle given) {
  RunOptions run("set_num_threads");
  run.read_threads(given);
  set_default_threads(given.is_none() ? 0 : run.get()->threads);
}

}  // namespace

void add_machine(nb::module_& module) {
  module.attr("__version__") = mh_version();
  module.def("info", &info);
  module.def("tasks_run", &tasks_run, nb::arg().none());
  module.def("get_num_threads", &default_threads);
  module.def("set_num_threads", &set_threads, nb::arg().none());
}

}  // namespace face

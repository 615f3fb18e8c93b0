// SPDX-License-Identifier: Apache-2.0
// Runs the table of bad input through C and C++:  bad_input_runner TABLE.json FOLDER_OF_MODELS
// One line a case and face, as JSON: {"face", "call", "case", "status", "sentence", "written"}.
#include <exception>
#include <fstream>
#include <iostream>

#include "problem.hpp"

namespace {

using bad_input::Json;

Json tried(bad_input::Outcome (*run)(const std::string&, bad_input::Problem&), const std::string& call,
           const Json& base, const Json& change) {
  try {
    bad_input::Problem problem(base, change);
    const bad_input::Outcome outcome = run(call, problem);
    return {{"status", outcome.status}, {"sentence", outcome.sentence}, {"written", problem.written()}};
  } catch (const bad_input::CannotBeSaid& why) {
    return {{"status", "cannot be said"}, {"sentence", why.what()}, {"written", false}};
  }
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 3) return 2;
  bad_input::models = argv[2];
  std::ifstream file(argv[1]);
  const Json table = Json::parse(file);
  for (const auto& [call, entry] : table.items())
    for (const Json& change : entry.at("cases"))
      for (const bool c : {true, false}) {
        Json line = tried(c ? bad_input::run_c : bad_input::run_cpp, call, entry.at("base"), change);
        line.update({{"face", c ? "C" : "C++"}, {"call", call}, {"case", change.at("name")}});
        std::cout << line.dump() << '\n';
      }
  return 0;
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}

// SPDX-License-Identifier: Apache-2.0
// onnx_conformance DIR [--target NAME]: ONNX's own test cases through this library, one line each, and a count.
#include <algorithm>
#include <array>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "operators.hpp"

namespace multihead::onnx {

namespace {

// Commits of onnx/onnx whose expected values are those of today's definition; docs/formats.md tells of older ones.
constexpr std::array<std::string_view, 2> kCommits{"6be0677fc22e74563e6eb472f931513aefe5648d",
                                                   "f7546912001bc31e92a238b17068a21b373d882e"};

constexpr const char* kUsage = "usage: onnx_conformance DIR [--target NAME]";

struct Arguments {
  std::filesystem::path folder;
  std::optional<Target> target;
};

Arguments read_arguments(const std::vector<std::string>& words) {
  Arguments arguments;
  bool has_folder = false;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (words[i] == "--target" && i + 1 < words.size())
      arguments.target = target_from_name(words[++i]);
    else if (words[i].starts_with('-') || has_folder)
      throw Malformed("'" + words[i] + "' is not understood\n" + kUsage);
    else
      arguments.folder = words[i], has_folder = true;
  }
  if (!has_folder) throw Malformed(std::string("a directory of cases is wanted\n") + kUsage);
  return arguments;
}

// The cases of a directory: its subdirectories, by name.
std::vector<Case> read_cases(const std::filesystem::path& folder) {
  if (!std::filesystem::is_directory(folder)) throw Malformed(folder.string() + ": it is not a directory");
  std::vector<std::filesystem::path> folders;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.is_directory()) folders.push_back(entry.path());
  if (folders.empty()) throw Malformed(folder.string() + ": it holds no case, a directory with a case.json");
  std::sort(folders.begin(), folders.end());
  std::vector<Case> cases;
  for (const auto& path : folders) cases.push_back(read_case(path));
  return cases;
}

enum class Verdict { passed, failed, skipped };

Verdict say(const Case& c, Verdict verdict, const std::string& words) {
  std::printf("%s: %s\n", c.name.c_str(), words.c_str());
  return verdict;
}

Verdict run_case(const Case& c, Target target) {
  if (!c.runs()) return say(c, Verdict::skipped, "skipped: " + c.op + " is another operator");
  Judge judge;
  try {
    if (c.op == "Attention") run_attention(c, target, judge);
    if (c.op == "RotaryEmbedding") run_rotary_embedding(c, target, judge);
    if (c.op == "TensorScatter") run_tensor_scatter(c, judge);
  } catch (const Skipped& skipped) {
    return say(c, Verdict::skipped, "skipped: " + skipped.reason);
  } catch (const Error& error) {
    judge.require(false, error.what());
  }
  if (judge.failed()) {
    const bool known = std::find(kCommits.begin(), kCommits.end(), c.commit) != kCommits.end();
    return say(c, Verdict::failed,
               "FAILED: " + judge.failures() + (known ? "" : " (the data are of another commit, " + c.commit + ")"));
  }
  char worst[64] = "";
  if (judge.worst() > 0)
    std::snprintf(worst, sizeof worst, ", off by at most %.1e in %s", judge.worst(), judge.worst_tensor().c_str());
  return say(c, Verdict::passed, std::string("passed") + worst);
}

int run(const Arguments& arguments) {
  const Target target = chosen_target(arguments.target);
  const std::vector<Case> cases = read_cases(arguments.folder);
  std::printf("target %s\n", std::string(target_name(target)).c_str());
  std::array<int, 3> counts{};
  for (const Case& c : cases) ++counts[static_cast<std::size_t>(run_case(c, target))];
  const auto [passed, failed, skipped] = counts;
  std::printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
  return failed == 0 && passed > 0 ? 0 : 1;
}

}  // namespace

}  // namespace multihead::onnx

int main(int argc, char** argv) {
  try {
    return multihead::onnx::run(multihead::onnx::read_arguments({argv + 1, argv + argc}));
  } catch (const std::exception& error) {
    std::fflush(stdout);
    std::fprintf(stderr, "onnx_conformance: %s\n", error.what());
    return 2;
  }
}

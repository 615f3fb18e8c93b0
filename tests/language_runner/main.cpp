// SPDX-License-Identifier: Apache-2.0
// Task "language" for tests that compare it with what others make of it.
//
//   language_runner stories COUNT          stories of training, a line each: what its tokenizer is learned from
//   language_runner logits MODEL CASE      CASE/ids.npy, starts.npy (int64) in, logits.npy (float32) out
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <string>

#include "multihead/io.hpp"
#include "multihead/tasks.hpp"
#include "train/tasks/stories.hpp"

namespace multihead {
namespace {

void tell(std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i)
    std::printf("%s\n", stories::text_of(stories::story(1, i, Part::training).words).c_str());
}

void run(const std::filesystem::path& model, const std::filesystem::path& folder) {
  Learned learned = load_learned(model);
  const Array ids = read_npy(folder / "ids.npy"), starts = read_npy(folder / "starts.npy");
  Matrix<float> logits(ids.count(), learned.model.config().classes);
  learned.model.forward({{ids.values<std::int64_t>().data(), {1, ids.count()}}, starts.values<std::int64_t>()}, {},
                        logits);
  const std::int64_t shape[] = {logits.rows(), logits.columns()};
  write_npy(folder / "logits.npy", std::span<const float>(logits.values()), shape);
}

}  // namespace
}  // namespace multihead

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  try {
    if (what == "stories" && argc == 3) {
      multihead::tell(std::strtoull(argv[2], nullptr, 10));
    } else if (what == "logits" && argc == 4) {
      multihead::run(argv[2], argv[3]);
    } else {
      std::fprintf(stderr, "language_runner stories COUNT | logits MODEL CASE\n");
      return 2;
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}

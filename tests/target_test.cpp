// SPDX-License-Identifier: Apache-2.0
// The target is the one that was asked for: pinned by a call, named by MULTIHEAD_TARGET, or the best; never another.
#include "multihead/target.hpp"

#include <gtest/gtest.h>

#include <map>

#include "multihead/multihead.hpp"
#include "problem.hpp"

#if defined(__linux__)
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace multihead::testing {
namespace {

// Best first.
constexpr Target kEveryTarget[] = {Target::avx512bf16, Target::avx512, Target::amx,
                                   Target::avx2,       Target::neon,   Target::baseline};

std::string name_of(Target target) { return std::string(target_name(target)); }

std::map<Target, std::uint64_t> counts() {
  std::map<Target, std::uint64_t> all;
  for (Target target : kEveryTarget) all[target] = tasks_run(target);
  return all;
}

// Runs work and says that of all targets only this one ran, and how many tasks.
template <class Work>
void expect_ran(Target target, std::uint64_t tasks, const Work& work) {
  std::map<Target, std::uint64_t> wanted = counts();
  wanted[target] += tasks;
  work();
  EXPECT_EQ(counts(), wanted) << "asked for " << name_of(target);
}

constexpr AttentionShape kShape{.batch = 2, .heads = 3, .q_len = 100, .kv_len = 4, .head_dim = 4, .value_dim = 6};

template <class T>
void attend(const AttentionOptions& options) {
  const std::vector<T> inputs(static_cast<std::size_t>(2 * 3 * 100 * 4), T(0.25));
  std::vector<T> out(static_cast<std::size_t>(2 * 3 * 100 * 6), T(77));
  attention(View4<const T>(inputs.data(), {2, 3, 100, 4}), View4<const T>(inputs.data(), {2, 1, 4, 4}),
            View4<const T>(inputs.data(), {2, 1, 4, 6}), View4<T>(out.data(), {2, 3, 100, 6}), options);
  EXPECT_EQ(out, std::vector<T>(out.size(), T(0.25)));
}

TEST(Target, NamesRoundTrip) {
  for (Target target : kEveryTarget) EXPECT_EQ(target_from_name(target_name(target)), target);
  EXPECT_EQ(target_name(Target::baseline), "baseline");
  EXPECT_EQ(target_name(Target::avx2), "avx2");
  EXPECT_EQ(target_name(Target::avx512), "avx512");
  EXPECT_EQ(target_name(Target::neon), "neon");
  EXPECT_EQ(target_name(Target::avx512bf16), "avx512bf16");
  EXPECT_EQ(target_name(Target::amx), "amx");
  EXPECT_EQ(target_name(static_cast<Target>(99)), "unknown");
}

TEST(Target, AvailableOnesAreBestFirst) {
  const std::vector<Target> found = available_targets();
  ASSERT_FALSE(found.empty());
  std::vector<Target> order(std::begin(kEveryTarget), std::end(kEveryTarget)), wanted;
  const bool emulated = found.back() != Target::baseline;  // they come last, and only run where they are asked for
  if (emulated) order = {Target::avx2, Target::baseline, Target::avx512, Target::avx512bf16, Target::amx};
#if defined(__x86_64__)
  else if (!__builtin_cpu_is("amd"))
    std::swap(order[0], order[1]);  // where VDPBF16PS is slower than multiply-adds
#endif
  for (Target target : order)
    if (std::find(found.begin(), found.end(), target) != found.end()) wanted.push_back(target);
  EXPECT_EQ(found, wanted);
  EXPECT_EQ(available_targets(), found);
#if defined(__aarch64__)
  EXPECT_EQ(found.front(), Target::neon);
#endif
  EXPECT_FALSE(processor_name().empty());
}

TEST(Target, ThePinnedOneRan) {
  for (Target target : available_targets()) {
    EXPECT_EQ(chosen_target(target), target);
    expect_ran(target, 2 * 3 * 3, [&] { attend<float>({.target = target}); });
    // Of few tasks the last three, of 4, 48 and 48 rows, run in 1, 3 and 3 pieces; tiles take whole ones.
    expect_ran(target, 2 * 3 * 3 + 4, [&] { attend<double>({.threads = 3, .target = target}); });
    const Matrix<float> X(100, 3), W(3, 4), Wo(4, 2);
    expect_ran(target, 2 * 3, [&] { multi_head_attention(X, W, W, W, Wo, 2, {.target = target}); });
    expect_ran(target, 3, [&] { self_attention(X, W, W, W, {.threads = 2, .target = target}); });
    const Matrix<double> X64(100, 3), W64(3, 4), Wo64(4, 2);
    expect_ran(target, 4 * 3, [&] { multi_head_attention(X64, W64, W64, W64, Wo64, 4, {.target = target}); });
    expect_ran(target, 3, [&] { self_attention(X64, W64, W64, W64, {.target = target}); });
  }
}

TEST(Target, ExplainNamesThePinnedOne) {
  for (Target target : available_targets())
    for (Type type : {Type::float32, Type::float64}) {
      AttentionShape shape = kShape;
      shape.type = type;
      const AttentionOptions options{.target = target};
      const AttentionPlan plan = explain(shape, options);
      EXPECT_EQ(plan.target, target);
      EXPECT_EQ(plan.kernel, (type == Type::float32 ? "attention_f32_" : "attention_f64_") + name_of(target));
      EXPECT_NE(plan.why.find(name_of(target)), std::string::npos) << plan.why;
      EXPECT_NE(plan.why.find("pinned"), std::string::npos) << plan.why;
      EXPECT_EQ(plan.tasks, 2 * 3 * 3);
      EXPECT_EQ(plan.visible_pairs, 2 * 3 * 100 * 4);
      EXPECT_EQ(plan.flops, 2.0 * 2 * 3 * 100 * 4 * (4 + 6));
      EXPECT_EQ(plan.scratch_bytes, attention_scratch_bytes(shape, options));
      EXPECT_NE(plan.score_tile.find(" keys x "), std::string::npos);
    }
}

// MULTIHEAD_TARGET is read once in a process, so each value takes a process of its own: this test run again, told by
// another variable what to find. Without that it finds what its own environment says.
constexpr const char* kVariable = "MULTIHEAD_TARGET";
constexpr const char* kExpectation = "MULTIHEAD_TEST_EXPECT";  // a target, an error's word, or "runs on:" and targets

std::string names_of_available() {
  std::string names = "runs on:";
  for (Target target : available_targets()) names += " " + name_of(target);
  return names;
}

void expect_chosen(const std::string& name) {
  const Target target = target_from_name(name), best = available_targets().front();
  EXPECT_EQ(chosen_target(), target);
  expect_ran(target, 2 * 3 * 3, [] { attend<float>({}); });
  expect_ran(target, 2 * 3 * 3, [] { attend<double>({}); });
  const AttentionPlan plan = explain(kShape);
  EXPECT_EQ(plan.target, target);
  EXPECT_NE(plan.why.find(target == best ? "best" : kVariable), std::string::npos) << plan.why;
#if defined(__unix__)
  const char* before = std::getenv(kVariable);
  const std::string saved = before ? before : "";
  setenv(kVariable, "changed later", 1);
  EXPECT_EQ(chosen_target(), target) << "the variable was read again";
  setenv(kVariable, saved.c_str(), 1);
#endif
}

void expect_error(const std::string& word, const std::string& value) {
  for (int call = 0; call < 2; ++call) {  // the second no better than the first
    try {
      expect_ran(Target::baseline, 0, [] { attend<float>({}); });
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error_name(error.code()), word) << error.what();
      EXPECT_NE(std::string(error.what()).find(value), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find(kVariable), std::string::npos) << error.what();
    }
    EXPECT_THROW(chosen_target(), Error);
    EXPECT_THROW(explain(kShape), Error);
  }
  for (Target target : available_targets())  // pinned, the variable does not matter
    expect_ran(target, 2 * 3 * 3, [&] { attend<double>({.target = target}); });
}

TEST(TargetChild, FindsWhatItsEnvironmentSays) {
  const char* told = std::getenv(kExpectation);
  const char* variable = std::getenv(kVariable);
  const std::string value = variable ? variable : "";
  const std::string expectation = told ? told : value.empty() ? name_of(available_targets().front()) : value;
  if (expectation.starts_with("runs on:")) {
    EXPECT_EQ(expectation, names_of_available());
  } else if (expectation == "bad_option" || expectation == "unsupported") {
    expect_error(expectation, value);
  } else {
    expect_chosen(expectation);
  }
}

#if defined(__linux__)
// This program again, for the test above; its exit status, or -1.
int run_child(const std::string& value, const std::string& expectation, bool show = false) {
  std::vector<std::string> settings{std::string(kVariable) + "=" + value,
                                    std::string(kExpectation) + "=" + expectation};
  for (char** entry = environ; *entry; ++entry) {
    const std::string setting = *entry;
    if (!setting.starts_with(kVariable) && !setting.starts_with(kExpectation) && !setting.starts_with("GTEST_"))
      settings.push_back(setting);
  }
  std::vector<std::string> words{"child", "--gtest_filter=TargetChild.*", "--gtest_brief=1"};
  std::vector<char*> environment, arguments;
  for (std::string& setting : settings) environment.push_back(setting.data());
  for (std::string& word : words) arguments.push_back(word.data());
  environment.push_back(nullptr), arguments.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  for (int output : {STDOUT_FILENO, STDERR_FILENO})
    if (!show) posix_spawn_file_actions_addopen(&actions, output, "/dev/null", O_WRONLY, 0);
  pid_t child = 0;
  const int failed = posix_spawn(&child, "/proc/self/exe", &actions, nullptr, arguments.data(), environment.data());
  posix_spawn_file_actions_destroy(&actions);
  int status = 0;
  if (failed != 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) return -1;
  return WEXITSTATUS(status);
}

void expect_child(const std::string& value, const std::string& expectation) {
  if (run_child(value, expectation) == 0) return;
  ADD_FAILURE() << kVariable << "='" << value << "' did not give " << expectation;
  run_child(value, expectation, true);
}

TEST(TargetVariable, IsHonouredOrRefused) {
  // An emulator may be unable to start a program, or start it on the machine below.
  if (run_child("", names_of_available()) != 0) GTEST_SKIP() << "a child process runs outside this emulator";
  EXPECT_NE(run_child("", "runs on: something else"), 0) << "a child that finds something else must fail";
  const std::vector<Target> found = available_targets();
  expect_child("", name_of(found.front()));
  for (Target target : kEveryTarget) {
    const bool available = std::find(found.begin(), found.end(), target) != found.end();
    expect_child(name_of(target), available ? name_of(target) : "unsupported");
  }
  for (const char* unknown : {"avx", "AVX2", " avx2", "best"}) expect_child(unknown, "bad_option");
}
#endif

}  // namespace
}  // namespace multihead::testing

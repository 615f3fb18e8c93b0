// SPDX-License-Identifier: Apache-2.0
// multihead: the command. Reads the command line, teaches by example, and turns errors into exit statuses.
#include <csignal>
#include <exception>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "model.hpp"
#include "options.hpp"

namespace multihead::cli {

namespace {

enum Status { success = 0, failure = 1, usage = 2 };

void add_common(CLI::App& app, Common& common) {
  app.set_version_flag("--version", std::string("multihead ") + version());
  add_number(&app, "--threads", common.threads, 1, "Threads; no result depends on it. All of the machine unless given");
  app.add_option_function<std::string>(
         "--target", [&common](const std::string& name) { common.target = target_from_name(name); },
         "baseline, avx2, avx512, avx512bf16, amx or neon; unless given, what MULTIHEAD_TARGET names, else the best")
      ->type_name("NAME");
}

int refused(const std::string& sentence) {
  std::cerr << "multihead: " << printable(sentence) << "\nmultihead --help shows what there is.\n";
  return usage;
}

int run(int argc, char** argv) {
  CLI::App app("Multi-head attention for CPUs", "multihead");
  Common common;
  common.threads = hardware_threads();
  add_common(app, common);
  app.fallthrough();
  app.require_subcommand(0, 1);
  app.footer(
      "multihead SUBCOMMAND --help shows its options and examples.\n"
      "Exit status: 0 success, 1 bad input or a failed check, 2 a command line that cannot be read.\n"
      "\nExamples:\n"
      "  multihead sample --trace\n"
      "  multihead heads \"The cat sat on the mat.\"\n"
      "  multihead info\n"
      "  multihead check --problems 20 --threads 2\n");
  const std::vector<Subcommand> subcommands{add_sample(app),  add_heads(app),   add_relations(app), add_ablate(app),
                                            add_compare(app), add_encode(app),  add_tokens(app),    add_attend(app),
                                            add_train(app),   add_learned(app), add_translate(app), add_generate(app),
                                            add_info(app),    add_explain(app), add_check(app)};
  try {
    std::vector<std::string> words;  // from the last to the first
    for (int i = argc - 1; i > 0; --i) words.push_back(guarded(argv[i]));
    app.parse(std::move(words));
  } catch (const CLI::Success& help_or_version) {
    return app.exit(help_or_version);
  } catch (const CLI::ParseError& error) {
    return refused(error.what());
  } catch (const Error& error) {
    return refused(error.what());
  }
  for (const Subcommand& subcommand : subcommands)
    if (subcommand.app->parsed()) return subcommand.run(common);
  return refused(
      "a subcommand is missing: sample, heads, relations, ablate, compare, encode, tokens, attend, train, learned, "
      "translate, generate, info, explain or check");
}

}  // namespace

}  // namespace multihead::cli

int main(int argc, char** argv) {
  using namespace multihead::cli;
#ifdef SIGPIPE
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is then a failed write, and is told
#endif
  int status = failure;
  try {
    status = run(argc, argv);
  } catch (const std::bad_alloc&) {
    std::cerr << "multihead: out of memory\n";
  } catch (const std::logic_error& error) {
    std::cerr << "multihead: internal error: " << printable(error.what()) << '\n';
  } catch (const std::exception& error) {
    std::cerr << "multihead: " << printable(error.what()) << '\n';
  }
  if (!std::cout.flush()) {
    std::cerr << "multihead: standard output cannot be written\n";
    return failure;
  }
  return status;
}

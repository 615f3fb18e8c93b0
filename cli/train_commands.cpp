// SPDX-License-Identifier: Apache-2.0
// The options of the subcommands about models that learn here: train, learned and translate.
#include <memory>

#include "multihead/tasks.hpp"
#include "options.hpp"

namespace multihead::cli {

namespace {

// "\nTasks:\n  four-relations  .." for the end of a help.
std::string task_list() {
  std::size_t widest = 0;
  for (const std::string_view name : task_names()) widest = std::max(widest, name.size());
  std::string text = "\nTasks:\n";
  for (const std::string_view name : task_names())
    text += "  " + std::string(name) + std::string(widest - name.size() + 2, ' ') +
            std::string(make_task(name)->summary()) + "\n";
  return text;
}

std::string one_of_tasks() {
  std::string names;
  for (const std::string_view name : task_names()) names += (names.empty() ? "" : ", ") + std::string(name);
  return names;
}

void add_word(CLI::App* app, const std::string& name, std::string& value, const std::string& what) {
  const auto read = [&value](const std::string& text) { value = unguarded(text); };
  app->add_option_function<std::string>(name, read, what)->type_name("TEXT");
}

void check_train(const TrainArguments& arguments) {
  if (arguments.task.empty())
    throw Error(ErrorCode::bad_option, "train: TASK is missing; it must be one of " + one_of_tasks());
  if (arguments.resume && arguments.out.empty())
    throw Error(ErrorCode::bad_option, "--resume goes on with the training in --out, which is missing");
  if (arguments.study && arguments.out.empty())
    throw Error(ErrorCode::bad_option, "--study keeps its trainings in --out, which is missing");
}

}  // namespace

Subcommand add_train(CLI::App& app) {
  auto arguments = std::make_shared<TrainArguments>();
  CLI::App* sub = add(app, "train", "Train a small Transformer on a task, judge it and show what its heads are for",
                      "  multihead train four-relations --out run\n"
                      "  multihead train four-relations --heads 1 --seed 2\n"
                      "  multihead train four-relations --study --seeds 3 --out study\n");
  sub->footer(sub->get_footer() + task_list());
  add_word(sub, "task", arguments->task, "The task");
  const auto optional = [sub](const char* option, std::optional<std::int64_t>& value, const char* what) {
    const auto read = [option, &value](const std::string& text) {
      value = whole_number(text);
      if (!value || *value < 1) refuse(option, text, "a whole number of at least 1");
    };
    return sub->add_option_function<std::string>(option, read, what)->type_name("N");
  };
  CLI::Option* heads = optional("--heads", arguments->heads, "Heads a layer; the task's own unless given");
  CLI::Option* seed = add_number(sub, "--seed", arguments->seed, 0, "Of initial weights, data and dropout");
  seed->default_str("1");
  optional("--steps", arguments->steps, "Steps; the task's own unless given");
  add_path(sub, "--out", arguments->out,
           "A folder for model, checkpoint, metrics, plot, results and page; without it none is written");
  CLI::Option* resume =
      sub->add_flag("--resume", arguments->resume, "Go on with the training that --out holds, to the same bits");
  CLI::Option* study = sub->add_flag(
      "--study", arguments->study,
      "Train the task's numbers of heads from several seeds; what --out holds already is not trained again");
  CLI::Option* seeds =
      optional("--seeds", arguments->seeds, "How many seeds the study has; the task's own unless given");
  CLI::Option* first = add_number(sub, "--first-seed", arguments->first_seed, 0, "The first of them");
  first->default_str("1");
  sub->add_flag("--json", arguments->json, "The results as JSON in place of text");
  study->excludes(heads)->excludes(seed)->excludes(resume);
  seeds->needs(study), first->needs(study);
  sub->callback([=] { check_train(*arguments); });
  return {sub, [arguments](const Common& common) { return train(*arguments, common); }};
}

Subcommand add_learned(CLI::App& app) {
  auto arguments = std::make_shared<LearnedArguments>();
  CLI::App* sub = add(app, "learned", "Show what the heads of a model that was trained here look at in an input",
                      "  multihead learned\n"
                      "  multihead learned four-relations --html heads.html\n");
  sub->footer(sub->get_footer() + task_list());
  add_word(sub, "task", arguments->task, "The task; unless given the first whose model is at hand");
  add_word(sub, "input", arguments->input, "What the model is given; an example of the task's own unless given");
  add_path(sub, "--html", arguments->html, "A page to write in place of pictures, one a stack; - is standard output");
  add_color(sub, arguments->color);
  add_path(sub, "--model", arguments->model,
           "The folder of a model that multihead train wrote, in place of a shipped one");
  return {sub, [arguments](const Common& common) { return learned(*arguments, common); }};
}

Subcommand add_translate(CLI::App& app) {
  auto arguments = std::make_shared<TranslateArguments>();
  CLI::App* sub = add(app, "translate", "Translate English of a little grammar into French, and show where heads look",
                      "  multihead translate \"the small cats sleep\"\n"
                      "  multihead translate --beam 4 \"the king that sings does not see my white horse\"\n"
                      "  multihead translate --summarise \"although he is tired, the old man works outside\"\n"
                      "  multihead translate \"the small cats sleep\" --html heads.html\n");
  add_texts(sub, "text", arguments->texts, "A sentence of words that the task knows")->expected(1)->required();
  sub->add_flag("--summarise", arguments->summarise, "Its main clause, in English, in place of French");
  add_number(sub, "--beam", arguments->beam, 1, "Hypotheses that are followed at once; 1 is greedy")->default_str("1");
  sub->add_flag("--heads", arguments->heads, "The heads of encoder and decoder too, not only the cross-attention's");
  add_path(sub, "--html", arguments->html, "A page to write in place of pictures, one a stack");
  add_color(sub, arguments->color);
  add_path(sub, "--model", arguments->model,
           "The folder of a model that multihead train translation wrote, in place of the shipped one");
  return {sub, [arguments](const Common& common) { return translate(*arguments, common); }};
}

}  // namespace multihead::cli

// A run's state: what a checkpoint keeps of it beside the tensors, and how a start takes it up again.
#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "checkpoint/loading.h"
#include "checkpoint/manifest.h"
#include "core/io/own_file.h"
#include "core/io/strict_json.h"
#include "data/file.h"
#include "infer/device_state.h"
#include "infer/identity.h"
#include "infer/load.h"
#include "kernels/api/printable.h"
#include "train/assembly.h"
#include "train/config/shape.h"
#include "train/environment.h"
#include "train/run.h"

namespace heddle {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostListBytes = size_t{256} << 20;

// What two shard lists (Loader::shard_list) say of the files in which they differ: "; a.bin was 10 bytes, SHA-256 ..., now ...".
std::string shard_changes(const std::string& saved, const std::string& now) {
  constexpr size_t kMostNamed = 5;
  struct Shard {
    std::string bytes, hash;
    std::string text() const { return concat(bytes, " bytes, SHA-256 ", hash.substr(0, 12)); }
  };
  const auto parse = [](const std::string& list) {
    std::map<std::string, Shard> shards;
    std::istringstream lines(list);
    for (std::string line; std::getline(lines, line);) {
      const size_t hash = line.rfind(' '), bytes = hash == std::string::npos || hash == 0 ? hash : line.rfind(' ', hash - 1);
      if (bytes == std::string::npos || bytes >= hash) continue;
      shards[line.substr(0, bytes)] = {line.substr(bytes + 1, hash - bytes - 1), line.substr(hash + 1)};
    }
    return shards;
  };
  const std::map<std::string, Shard> before = parse(saved), after = parse(now);
  std::vector<std::string> changes;
  // The shard of `in` with this content whose name `other` does not have.
  const auto renamed = [](const std::map<std::string, Shard>& in, const std::map<std::string, Shard>& other, const std::string& hash) {
    return std::find_if(in.begin(), in.end(), [&](const auto& s) { return s.second.hash == hash && !other.count(s.first); });
  };
  for (const auto& [name, shard] : before) {
    const auto it = after.find(name);
    if (it == after.end()) {
      const auto moved = renamed(after, before, shard.hash);
      changes.push_back(moved == after.end() ? concat(name, " (", shard.text(), ") is missing") : concat(name, " is now called ", moved->first));
    } else if (it->second.hash != shard.hash) {
      changes.push_back(concat(name, " was ", shard.text(), ", now ", it->second.text()));
    }
  }
  for (const auto& [name, shard] : after) {
    if (!before.count(name) && renamed(before, after, shard.hash) == before.end())
      changes.push_back(concat(name, " (", shard.text(), ") was not there"));
  }
  std::string text;
  for (size_t i = 0; i < std::min(changes.size(), kMostNamed); ++i) text += "; " + changes[i];
  if (changes.size() > kMostNamed) text += concat("; and ", changes.size() - kMostNamed, " more");
  return text;
}

}  // namespace

void Run::take_counters(uint64_t saved_step) {
  const nlohmann::json saved = parse_strict_json(state.scalars, config.out + " (counters of the checkpoint)");
  const auto counter = [&](const char* name, uint64_t most) {
    const nlohmann::json& value = saved.at(name);
    if (!value.is_number_unsigned() || value.get<uint64_t>() > most) {
      fail("pretrain",
           concat(config.out, ": the counter ", name, " of the checkpoint of step ", saved_step, " is ",
                  value.is_number() ? value.dump() : value.type_name(), ", possible are 0 to ", most,
                  "; heddle did not write that: go back to an older checkpoint, or start a new run with --init-from"),
           ExitCode::bad_data);
    }
    return value.get<uint64_t>();
  };
  try {
    step = counter("step", kNumberEnd - 1);
    if (step != saved_step) {
      fail("pretrain",
           concat(config.out, ": the checkpoint of step ", saved_step, " counts ", counted(step, "step"),
                  "; heddle did not write that: go back to an older checkpoint, or start a new run with --init-from"),
           ExitCode::bad_data);
    }
    cursor = counter("cursor", kNumberEnd - 1);
    tokens = counter("tokens", kNumberEnd - 1);
    StepState kept;
    kept.step = step;
    kept.adam_t = counter("adam_t", step);
    kept.skipped = counter("skipped", step);
    std::array<double, kPackedSpikes> packed{};
    saved.at("spike").get_to(packed);
    int64_t rollbacks = 0;
    kept.spikes = unpack(packed, rollbacks);
    trainer->go_on_from(kept);
    spikes.used(rollbacks);
    // A job killed between a roll-back and its next save has used up budget that no checkpoint records.
    spikes.used(static_cast<int64_t>(bad_batches->rollbacks()));
    if (const std::string recorded = saved.value(kTokenizerCounter, ""); !recorded.empty()) {
      if (loader->tokenizer()) require_same_tokenizer({config.out + " (its checkpoint)", recorded, 0}, *loader->tokenizer());
      tokenizer_fingerprint_ = recorded;
    } else if (loader->tokenizer() && !resumed_step) {
      console.warn(concat(config.out, ": the checkpoint of step ", saved_step, " does not record whose tokens it learned; of ",
                          loader->tokenizer()->name, " only the size is compared with it. Those that follow record it"));
    }
    const std::string fingerprint = saved.at("data"), now = loader->fingerprint();
    if (fingerprint != now) {
      std::string list;
      if (fs::exists(file("shards.txt"))) list = read_small_file(file("shards.txt"), kMostListBytes);
      const bool known = Loader::fingerprint_of(list) == fingerprint;  // it only explains; the checkpoint decides
      fail("pretrain",
           concat("the shards of --data are not those this run was trained on (fingerprint ", now.substr(0, 12), ", saved ",
                  fingerprint.substr(0, 12), ")", known ? shard_changes(list, loader->shard_list()) : "",
                  ": give the same files, or start a new run with --init-from ", config.out),
           ExitCode::mismatch);
    }
  } catch (const nlohmann::json::exception&) {
    fail("pretrain",
         concat(config.out,
                ": the checkpoint's counters (step, cursor, tokens, adam_t, skipped, spike, data) are not all there or not all numbers; it was "
                "written by another program or version: go back to an older checkpoint, or start a new run with --init-from"),
         ExitCode::bad_data);
  }
}

// Says whether the steps from here on are those of a run that was not stopped.
void Run::compare_with_saved(const std::string& environment) {
  const std::vector<EnvironmentChange> changes = compare_environments(found_->environment, environment);
  for (const EnvironmentChange& c : changes) {
    console.line(concat("resume: ", c.name, " was ", c.saved.empty() ? "not recorded" : c.saved, ", now ", c.now.empty() ? "not recorded" : c.now));
  }
  const std::string but = trajectory_changed_ ? ", but for the options changed above" : "";
  console.line(changes.empty()
                   ? concat("resume: same program, machine and layout: bit for bit the run that was not stopped", but)
                   : "resume: the state is bit for bit the saved one; with what is listed above, the steps from here on may round otherwise");
}

// The configuration in the run directory is for people and for new runs. Whoever edits it there expects otherwise.
void Run::compare_with_file() {
  constexpr size_t kMostBytes = size_t{1} << 20;
  const std::string path = file("config.toml"), cure = "; the run goes on by its checkpoint: flags, or --config FILE, change it";
  const std::optional<std::string> text = read_own_file(path, kMostBytes + 1);
  if (!text) return;
  try {
    const std::string edited = edited_fields(*text, found_->config, config, path);
    if (!edited.empty()) console.warn(concat(path, " is not read, and differs in ", edited, cure));
  } catch (const Error& e) {
    console.warn(concat(path, " is not read, and could not be: ", e.what(), cure));
  }
}

// What weights mean and their shapes do not tell: under another value they are those of another model.
void Run::require_same_architecture(const RunConfig& theirs) {
  constexpr std::string_view kMeaning[] = {"heads", "window", "mlp", "norm", "position", "rope-theta", "qk-norm"};
  std::string refused;
  for (const std::string_view name : kMeaning) {
    const Option<RunConfig>& o = RunConfig::option(name);
    const std::string there = o.toml_text(theirs), here = o.toml_text(config);
    const bool acts = name != "rope-theta" || (theirs.position == Position::rope && config.position == Position::rope);
    if (there == here || !acts) continue;
    if (config.source(name) == Source::flag) {
      console.line(concat("--init-from ", config.init_from, ": ", name, " was ", there, ", now ", here, " (--", name, ")"));
    } else {
      refused += concat("\n  ", name, ": ", there, " there, here ", here, " (", config.origin_text(name), ")");
    }
  }
  if (refused.empty()) return;
  fail("pretrain",
       concat("--init-from ", config.init_from, ": its weights belong to another architecture:", refused,
              "\n  give the values there, or say those here on the command line to go on with the weights all the same"),
       ExitCode::mismatch);
}

// The weights of another run; of another tokenizer they would be noise.
void Run::load_initial_weights() {
  const std::optional<TokenizerIdentity>& ours = loader->tokenizer();
  const auto compare = [&](const ModelTokenizer& theirs) {
    if (ours && theirs.identity) require_same_tokenizer(*theirs.identity, *ours);
    return ours && theirs.identity;
  };
  compare(tokenizer_of_model(config.init_from, ""));  // before the tensors, whose shapes would tell less
  const CheckpointReader reader = open_checkpoint(real_file_system(), config.init_from);
  if (!make_) describe_model(reader.manifest().scalars, reader.path());  // of this version?
  RunConfig theirs;
  try {
    apply_toml(theirs, reader.manifest().config, "saved configuration", Source::saved);
  } catch (const Error& e) {
    fail("model", concat(reader.path(), ": ", e.what()), ExitCode::bad_data);
  }
  if (!make_) require_same_architecture(theirs);
  StateDict state;
  optimizer->add_state(state);
  StateDict weights;
  for (const StateDict::Entry& e : state.tensors) {
    if (e.name.rfind("model.", 0) == 0) weights.tensors.push_back(e);
  }
  check_model_tensors(arena->layout(), [&](std::span<const TensorIdentity> wanted) { check_tensors(reader, wanted, "model."); });
  read_state(reader, weights, "model.", copy_into(device));
  if (!compare(tokenizer_of_model(config.init_from, reader.manifest().scalars))) {
    console.warn(concat("--init-from ", config.init_from, ": nothing shows that its tokenizer is that of the shards"));
  }
  trainer->masters_changed();
}

// Of a model of the program's own: what it says of itself today and what it said when it was saved.
void Run::require_same_model(const Learner& given) const {
  const nlohmann::json saved = parse_strict_json(found_->scalars, config.out + " (counters of the checkpoint)");
  const nlohmann::json now = parse_strict_json(given.description(), "the description of the model");
  const auto before = saved.find(kModelCounter);
  if (before != saved.end() && *before == now) return;
  fail("pretrain",
       concat(config.out, ": its checkpoint is of another model: ", before == saved.end() ? std::string("it does not say of which") : before->dump(),
              ", and this is ", now.dump(), "; go on with the program that made it, or give another --out"),
       ExitCode::mismatch);
}

void Run::restore() {
  const std::string environment = environment_text(config, device, control().size());
  checkpoints->set_environment(environment);
  if (found_) {
    checkpoints->load(state);
    trainer->masters_changed();
    take_counters(found_->step);
    resumed_step = step;
    complete();  // the horizon in tokens, from what was trained
    compare_with_saved(environment);
    if (is_first()) compare_with_file();
  }
  schedule = make_schedule(config);
  checkpoints->prepare(state);
}

void Run::write_files() {
  if (!is_first()) return;
  if (tokenizer && !fs::exists(file("tokenizer.json"))) tokenizer->save(file("tokenizer.json"));
  replace_file(file("config.toml"), to_toml(config));
  replace_file(file("shards.txt"), loader->shard_list());
}

void Run::save() {
  const StepState counters = trainer->kept();
  nlohmann::json scalars = {{"step", step},
                            {"cursor", cursor},
                            {"tokens", tokens},
                            {"adam_t", counters.adam_t},
                            {"skipped", counters.skipped},
                            {"seed", config.seed},
                            {"spike", pack(counters.spikes, spikes.rollbacks())},
                            {"data", loader->fingerprint()}};
  scalars[kModelCounter] = nlohmann::json::parse(learner->description());
  scalars[kDocumentMaskCounter] = config.doc_mask;
  if (!tokenizer_fingerprint_.empty()) scalars[kTokenizerCounter] = tokenizer_fingerprint_;
  state.scalars = scalars.dump();
  checkpoints->save(step, state, to_toml(config));
}

void Run::roll_back(uint64_t to, const std::string& reason) {
  const uint64_t bad_end = cursor;
  const uint64_t bad_step = step;
  checkpoints->roll_back();
  const std::optional<Checkpoints::Loaded> back = checkpoints->find_newest(Checkpoints::Resume::must, to);
  checkpoints->load(state);
  trainer->masters_changed();
  take_counters(back->step);
  const Loader::Place place = loader->place(cursor);
  if (is_first()) bad_batches->add({bad_step, cursor, bad_end - cursor, place.file, place.offset, reason, true});
  console.warn(concat("rolled back from step ", bad_step, " to ", step, ": ", reason, "; samples [", cursor, ", ", bad_end, ") are left out"));
  cursor = bad_end;
}

}  // namespace heddle
